"""Files, memory and databases: what every other wing reads and writes with."""
