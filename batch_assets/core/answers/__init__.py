"""Turn answers into the typed columns of results."""
