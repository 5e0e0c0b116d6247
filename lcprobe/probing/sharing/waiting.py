"""Waiting for the work of other processes."""

import sys
import time
from collections.abc import Mapping

from lcprobe.errors import listed
from lcprobe.locks import LINE_SECONDS, Process

WAIT_SECONDS = 1.0
"""Between two looks at what other processes have claimed."""


class Waiting:
    """Waits a moment for the work of other processes; one line now and then that says what for."""

    def __init__(self, seconds: float = WAIT_SECONDS):
        self._seconds, self._next = seconds, 0.0

    def __call__(self, claimed: Mapping[str, Process]) -> None:
        """claimed: who has what. `probing: waiting for process 7 on a since 10:02: mamba2, vt words @512`."""
        now = time.monotonic()
        if claimed and now >= self._next:
            self._next = now + LINE_SECONDS
            by_process: dict[str, list[str]] = {}
            for what, process in claimed.items():
                by_process.setdefault(str(process), []).append(what)
            text = "; ".join(f"{process}: {listed(whats[:4], ', ')}" for process, whats in by_process.items())
            print(f"probing: nothing is free, waiting for {text}", file=sys.stderr, flush=True)
        time.sleep(self._seconds)
