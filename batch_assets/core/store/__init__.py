"""What is stored under the root: request files, indexes, responses, and how requests stand by them."""
