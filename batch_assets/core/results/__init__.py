"""The third stage: ended batches -> response files, and index + responses -> the table."""
