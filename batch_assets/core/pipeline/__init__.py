"""Pipelines: the blocks of a pipeline file, their validation, and the checks when it is loaded."""
