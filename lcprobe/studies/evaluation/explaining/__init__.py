"""`lcprobe explain`: measurements, decision, and the sentences about them."""
