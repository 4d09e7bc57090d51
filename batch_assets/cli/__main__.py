"""`python -m batch_assets.cli`: the same as the command `batch-assets`."""

from batch_assets.cli import main

main(prog_name="batch-assets")
