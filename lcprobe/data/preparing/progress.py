"""How far preparing is."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PrepareReport:
    """what: is being done. chars, documents, tokens: done of the corpus. share: of it, 0 to 1, None where its size is
    not known. chars_per_second: since it began or went on. seconds_left: None where that is not known."""

    what: str
    chars: int
    documents: int
    tokens: int
    share: float | None
    chars_per_second: float
    seconds_left: float | None


PrepareObserver = Callable[[PrepareReport], None]


def unobserved(report: PrepareReport) -> None:
    """Tell nobody."""


class Pace:
    """Tells an observer how far a task is, and for how long it still goes."""

    def __init__(self, observe: PrepareObserver, what: str, clock: Callable[[], float] = time.monotonic):
        self._observe, self._what, self._clock = observe, what, clock
        self._began, self._first = clock(), None

    def show(self, chars: int, documents: int, tokens: int, share: float | None) -> None:
        """chars: since this began, or went on; the others: of all."""
        seconds = max(self._clock() - self._began, 1e-9)
        left = None
        if share is not None:
            self._first = share if self._first is None else self._first
            gained = share - self._first
            left = seconds * (1 - share) / gained if gained > 0 else None
        self._observe(PrepareReport(self._what, chars, documents, tokens, share, chars / seconds, left))
