"""What a process is doing, and since when: those who do it say so, the watchdog reads it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

WAITING, STEPPING = "waiting for a batch", "in a training step"
PASSING = "in a pass that processes share"
REPEATED = (WAITING, STEPPING, PASSING)
"""Phases that come again and again, by whose length one is told that lasts too long."""


class Heart:
    """Marks of a process. compiles: whether the first step does, and may take its time."""

    def __init__(self, compiles: bool = False):
        self._compiles = compiles
        self.phase, self.step, self.marks = "", 0, 0
        """phase: empty before the first batch, and while something else is done than what is watched; marks: their
        number so far."""
        self._since, self.longest = time.monotonic(), 0.0
        """longest: seconds of the longest repeated phase so far that ended."""
        self.pause = ""
        """What is done instead of training."""

    def mark(self, phase: str, step: int) -> None:
        """A phase begins. step: the one that is done or waited for."""
        now = time.monotonic()
        if self.phase in REPEATED:
            self.longest = max(self.longest, now - self._since)
        compiling = self._compiles and phase == STEPPING
        self._compiles = self._compiles and not compiling
        self.phase, self.step, self._since = "" if compiling else phase, step, now
        self.marks += 1

    @contextmanager
    def during(self, phase: str, step: int = 0) -> Iterator[None]:
        """The block is this phase; nothing is watched after it."""
        self.mark(phase, step)
        try:
            yield
        finally:
            self.mark("", step)

    @contextmanager
    def paused(self, what: str) -> Iterator[None]:
        """The block is no training, and takes as long as it takes."""
        phase, self.phase, self.pause = self.phase, "", what
        try:
            yield
        finally:
            self.phase, self.pause, self._since = phase, "", time.monotonic()

    def forgive(self, seconds: float) -> None:
        """The whole process stood still for so long, as after Ctrl-Z: that does not count."""
        self._since += seconds

    @property
    def still_for(self) -> float:
        """Seconds since the last mark; 0 where nothing is watched."""
        return time.monotonic() - self._since if self.phase else 0.0
