"""Checkpoints of other projects: how their tensors map to ours, one format a file."""
