"""Numbers in words, for terminals and reports."""

from lcprobe.words.counts import counted, plural
from lcprobe.words.quantities import duration, roughly, short, short_bytes

__all__ = ["counted", "duration", "plural", "roughly", "short", "short_bytes"]
