"""Training: a study, one run of it, a learning-rate sweep, and probing while training."""
