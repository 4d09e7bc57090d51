"""What asset pages and runs show: columns, tables, prompts and progress."""
