"""The Dagster layer: three assets for each pipeline, and one sensor that watches the ledger."""

from dagster_shared.libraries import DagsterLibraryRegistry

from batch_assets import __version__

# Dagster's UI lists the versions of the libraries that a code location uses.
DagsterLibraryRegistry.register("batch-assets", __version__, is_dagster_package=False)
