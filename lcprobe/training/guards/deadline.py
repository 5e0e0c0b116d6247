"""A limit on the time of a process, from its start."""

import os
import time
from functools import cache
from pathlib import Path

IMPORTED = time.monotonic()


def hours_since_start() -> float:
    """Hours since this process began; where the system does not say, since it imported this module."""
    return (time.monotonic() - _began(os.getpid())) / 3600


@cache
def _began(process: int) -> float:
    """When a process began, on the monotonic clock."""
    try:
        started = float(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return IMPORTED
    return time.monotonic() - age


def is_over(max_hours: float | None) -> bool:
    """Whether this process has run for so long."""
    return max_hours is not None and hours_since_start() >= max_hours
