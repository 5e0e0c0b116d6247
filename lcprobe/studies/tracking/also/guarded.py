"""Trackers of other libraries: what these raise ends tracking, not the run."""

import logging
from collections.abc import Callable

from lcprobe.tracking import Tracker

log = logging.getLogger(__name__)


class Guarded(Tracker):
    """A tracker that does nothing after any failure. title: what users call it."""

    title = ""
    off = False
    """Whether it does nothing any more."""

    def _try(self, action: Callable[[], object]) -> None:
        if self.off:
            return
        try:
            action()
        except Exception as error:  # libraries raise their own errors, OSError and others
            self.off = True
            line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            log.warning("%s is off from now on (%s); CSV and records are complete", self.title, line)
