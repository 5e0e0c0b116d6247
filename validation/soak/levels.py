"""What a soak samples of its process: resident memory by where it lies, malloc's heaps, open files, threads, objects.

Linux with glibc; elsewhere what can be known. Resident memory alone does not say whose it is: malloc keeps what is
freed (`runtime.keep_memory`), so that pages of a heap may be touched for the first time in a later round, and V8, in
which vl-convert draws figures, has code and a heap of its own.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from validation.soak.judgement import (
    ALLOCATED,
    BLOCKS,
    ELSEWHERE,
    HEAPS,
    IN_HEAPS,
    IN_V8,
    OBJECTS,
    OPEN_FILES,
    RESIDENT,
    THREADS,
)

PAGE = os.sysconf("SC_PAGE_SIZE")
MALLINFO = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip
HEAP_OF_A_THREAD = 1 << 26
"""Bytes to which glibc aligns the heaps of other threads than the first."""
END_OF_V8 = 1 << 46
"""V8 asks for its pages below this address, at random; Linux maps what has no wish of its own far above."""


class _Mallinfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO)


def at_any_time() -> dict[str, float]:
    """Resident memory, open files and threads, in a fraction of a millisecond."""
    return {
        RESIDENT: int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6,
        OPEN_FILES: len(os.listdir("/proc/self/fd")) - 1,
        THREADS: len(os.listdir("/proc/self/task")),
    }


def at_the_end() -> dict[str, float]:
    """What a finished round leaves: objects that Python tracks, blocks that it has handed out, bytes that glibc has
    handed out and those of its heaps, and where resident memory lies. Some tens of milliseconds."""
    values: dict[str, float] = {OBJECTS: len(gc.get_objects()), BLOCKS: sys.getallocatedblocks()}
    mallinfo = _mallinfo()
    if mallinfo is not None:
        now = mallinfo()
        values |= {ALLOCATED: (now.uordblks + now.hblkhd) / 1e6, HEAPS: now.arena / 1e6}
        places = resident_by_place(Path("/proc/self/smaps").read_text())
        values |= {name: resident / 1e6 for name, resident in places.items()}
    return values


@cache
def _mallinfo() -> Callable[[], Any] | None:
    """glibc's mallinfo2; None in another C library. Looked up once: a look-up makes classes, which stay a while."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _Mallinfo
    return libc.mallinfo2


def resident_by_place(smaps: str) -> dict[str, int]:
    """Resident bytes in malloc's heaps, in V8, and elsewhere, of the text of a process's smaps."""
    resident, place = {IN_HEAPS: 0, IN_V8: 0, ELSEWHERE: 0}, ELSEWHERE
    for line in smaps.splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            place = _place(int(first.split("-")[0], 16), rest[0], rest[4] if len(rest) > 4 else "")
        elif first == "Rss:":
            resident[place] += int(rest[0]) * 1024
    return resident


def _place(begin: int, allowed: str, name: str) -> str:
    """Of a mapping: its first address, what is allowed there, and its name, empty where it has no file."""
    if name == "[heap]" or (not name and allowed == "rw-p" and begin % HEAP_OF_A_THREAD == 0):
        return IN_HEAPS
    return IN_V8 if not name and (allowed == "rwxp" or begin < END_OF_V8) else ELSEWHERE
