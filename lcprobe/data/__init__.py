"""Corpora as packed token shards, and batches as a pure function of (seed, step, part)."""
