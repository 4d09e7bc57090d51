"""The three assets of a pipeline and the steps behind them."""
