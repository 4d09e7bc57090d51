"""The Dagster layer: three assets a pipeline, and one sensor that watches the ledger."""
