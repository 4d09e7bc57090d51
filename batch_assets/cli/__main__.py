"""`python -m batch_assets.cli` runs the command `batch-assets`."""

from batch_assets.cli import main

main(prog_name="batch-assets")
