-- PostgreSQL's image runs this once. The database of Dagster exists by then.
CREATE DATABASE ledger;
