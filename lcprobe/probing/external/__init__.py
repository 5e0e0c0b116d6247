"""Other evaluation suites, run on our checkpoints."""
