"""The metadata that asset pages and runs show: columns, tables, prompts and progress."""
