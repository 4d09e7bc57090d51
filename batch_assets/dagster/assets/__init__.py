"""The three assets of a pipeline and the steps that materialize them."""
