"""The chapter "Published and ours": printed numbers beside those of the same checkpoints under the probe."""
