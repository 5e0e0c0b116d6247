"""RULER's score: references that occur anywhere in a greedy continuation of a given number of tokens.

Source: NVIDIA/RULER, scripts/eval/synthetic/constants.py and scripts/data/synthetic/constants.py (arXiv 2404.06654).
Imports no torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lcprobe.errors import ConfigError
from lcprobe.schema import Converter

BUDGETS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}
"""RULER's greedy tokens by task."""
DEFAULT_BUDGET = 128
"""Greedy tokens for another task."""
MAX_BUDGET = 4096
Rule = Literal["all", "part"]


@dataclass(frozen=True)
class Continuation:
    """What is printed besides the answer: greedy tokens after the prompt, and the references to look for in them."""

    tokens: int
    references: tuple[str, ...]


def substring_score(prediction: str, outputs: Sequence[str], rule: Rule) -> float:
    """RULER's score of one prediction, 0 .. 1: references that occur anywhere in it, ignoring case. all: their share
    (string_match_all); part: 1 if any does (string_match_part).
    """
    text = re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip().lower()
    hits = [reference.lower() in text for reference in outputs]
    return sum(hits) / len(hits) if rule == "all" else float(any(hits))


def budget_of(continuation: int | str | None, task: str) -> int:
    """Greedy tokens for a kind of task (niah, vt, ...), 0 for none. continuation: as in the config."""
    if continuation == "ruler":
        return BUDGETS.get(task, DEFAULT_BUDGET)
    return int(continuation or 0)


class ContinuationConverter(Converter):
    """Reads `probe.continuation`."""

    def convert(self, value: Any, key: str) -> int | str | None:
        """Raises ConfigError for anything but tokens, ruler and null."""
        if value is None or value == "ruler":
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_BUDGET:
            return value
        raise ConfigError(key, value, self.allowed())

    def allowed(self) -> str:
        """What may be written."""
        return f"tokens (1 .. {MAX_BUDGET}), ruler (RULER's number for the task) or null"


CONTINUATION = ContinuationConverter()
