"""One Alembic script for each version of the ledger's tables. What is released in one is never changed again."""
