"""The sink: a database table with a copy of complete results."""
