"""What is worth importing before a process forks."""

# What our own modules import, immediately or when first used.
PACKAGES = (
    "anthropic",
    "anthropic.resources.messages.batches",
    "dagster",
    "dagster._core.snap",
    "dagster.components",
    "httpcore2",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich.progress",
    "sqlalchemy.dialects.sqlite",
    "tomlkit",
)
