"""Ten planted causes for `lcprobe explain`, and measurements in which nothing was changed."""
