"""Studies: plan a grid of runs, train them, evaluate them, and keep what they wrote together."""
