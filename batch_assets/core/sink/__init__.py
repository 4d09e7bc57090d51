"""Complete results -> a table of a database."""
