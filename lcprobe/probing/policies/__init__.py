"""Shortcut policies that answer without retrieval, and what they may observe."""
