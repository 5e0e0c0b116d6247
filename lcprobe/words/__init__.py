"""Numbers in words, for terminals and reports."""

from lcprobe.words.counts import and_list, counted, plural, span
from lcprobe.words.quantities import distinct_numbers, duration, roughly, short, short_bytes
from lcprobe.words.terminal import width_of

__all__ = [
    "and_list",
    "counted",
    "distinct_numbers",
    "duration",
    "plural",
    "roughly",
    "short",
    "short_bytes",
    "span",
    "width_of",
]
