"""The dataset of a pipeline: where its rows come from, and the types of its columns."""
