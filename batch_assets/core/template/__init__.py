"""Templates: compile and check the params of a pipeline, and render them for each row."""
