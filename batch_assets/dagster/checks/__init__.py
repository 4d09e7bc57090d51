"""The asset checks of a pipeline's results."""
