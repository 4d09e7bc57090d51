"""Reading and writing: files under the root, Parquet, databases, parallel transfers, memory."""
