"""From the mixture to the training step: what a step's batches are made into, and by which processes."""
