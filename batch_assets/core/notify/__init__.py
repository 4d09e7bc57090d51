"""Messages about a pipeline: what they say, and the ways they go."""
