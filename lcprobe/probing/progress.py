"""ProbeProgress of probing, as lines on stderr."""

import sys
import time
from collections.abc import Callable

import pyarrow as pa

ProbeProgress = Callable[[int, int, str], None]
"""Called with (tokens done, tokens in total, what comes next)."""


def no_progress(done: int, total: int, label: str) -> None:
    """Reports nothing."""


class ProbeProgressLines:
    """One line every few seconds."""

    def __init__(self, name: str, seconds: float = 10.0):
        self._name, self._seconds, self._begin, self._next = name, seconds, time.perf_counter(), 0.0
        self._first: int | None = None

    def __call__(self, done: int, total: int, label: str) -> None:
        """`probing mamba2: 34 % of 2.1M tokens, 0:40 left: multikey corpus/words/numbers @512`."""
        now = time.perf_counter()
        if now < self._next and label:
            return
        self._next = now + self._seconds
        self._first = done if self._first is None else self._first  # earlier runs took none of this run's time
        share, eta, own = done / max(total, 1), "", done - self._first
        if own and label:
            left = int((now - self._begin) / own * (total - done))
            eta = f", {left // 60}:{left % 60:02d} left"
        tail = f": {label}" if label else f" in {now - self._begin:.0f} s"
        print(
            f"probing {self._name}: {share:4.0%} of {total / 1e6:.2f}M tokens{eta}{tail}", file=sys.stderr, flush=True
        )


def print_shared_tokens(name: str, records: pa.Table) -> None:
    """One line on stderr: how many prompt tokens were read, and the share that needed no reading of its own."""
    read, prompts = (sum(filter(None, records[column].to_pylist())) for column in ("read_tokens", "prompt_tokens"))
    if read:
        text = f"{prompts / 1e6:.2f}M prompt tokens read as {read / 1e6:.2f}M, {1 - read / prompts:.0%} shared"
        print(f"probing {name}: {text}", file=sys.stderr, flush=True)
