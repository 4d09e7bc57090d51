"""A deployment to copy: image, compose.yaml, values for Helm, and a program that runs it without Docker."""
