"""The dataset of a pipeline: where its rows come from, and what types they have."""
