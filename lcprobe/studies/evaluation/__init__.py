"""Evaluation: which checkpoints to probe, under which extensions, and the report over their records."""
