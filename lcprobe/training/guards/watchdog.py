"""Ends a process in which nothing moves, with what every thread was doing, so that a scheduler can start it again.

A step that waits for another process, or for batches, cannot be interrupted from within: the process ends without
clean-up. Checkpoints and records are complete or not there, and the lock of a process that is gone is free.
"""

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lcprobe.errors import LcprobeError, PeerError, exit_code_of, is_left_to_another, line_of
from lcprobe.training.config import HANG_MINUTES
from lcprobe.training.guards.heart import WAITING, Heart
from lcprobe.training.guards.peers import BEAT_SECONDS, Peers

LONGEST_STEPS = 30
"""Where no limit is set: it is at least so many times the longest step of the process."""
AWAY_SECONDS = 5.0
"""A look that comes so much too late says that the whole process stood still, as after Ctrl-Z."""
SHOW_CURSOR = "\x1b[?25h"
"""For a terminal, on which progress is shown without."""
Reason = LcprobeError | KeyboardInterrupt
Ended = Callable[[Reason], None]
"""Is told what a process ends with."""
Looks = Callable[[float], Reason | None]
"""Looks for another reason to end the process; is told for how many seconds it ran since the last look."""


@dataclass(frozen=True)
class Limit:
    """How long nothing may move. key: the setting; minutes: its value, 0: for ever, None: HANG_MINUTES, or
    LONGEST_STEPS where that is more; resumes: what the same command goes on with."""

    key: str
    minutes: float | None
    resumes: str

    @property
    def seconds(self) -> float:
        """At least; 0: for ever."""
        return 60 * (HANG_MINUTES if self.minutes is None else self.minutes)

    def is_over(self, heart: Heart) -> bool:
        """Whether a process hangs."""
        scaled = LONGEST_STEPS * heart.longest if self.minutes is None else 0.0
        return self.seconds > 0 and heart.still_for > max(self.seconds, scaled)


def nothing_else(ran: float) -> None:
    """Looks for no other reason."""


@contextmanager
def watched(
    heart: Heart, peers: Peers, limit: Limit, stacks: Path, ended: Ended, looks: Looks = nothing_else
) -> Iterator[None]:
    """End this process when the block does not move for so long, and when `looks` finds a reason. stacks: the file in
    which it then says what its threads were doing."""
    over = threading.Event()
    pause = min(BEAT_SECONDS, limit.seconds / 5) if limit.seconds else BEAT_SECONDS

    def watch() -> None:
        before = time.monotonic()
        while not over.wait(pause):
            ran = time.monotonic() - before
            if ran > pause + AWAY_SECONDS:
                heart.forgive(ran - pause)
                ran = pause
            before = time.monotonic()
            peers.beat()
            reason = looks(ran) or _hang(heart, peers, limit, stacks, over)
            if reason is not None and not over.is_set():
                _end(reason, ended)

    peers.beat()
    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def _hang(heart: Heart, peers: Peers, limit: Limit, stacks: Path, over: threading.Event) -> PeerError | None:
    """Why the process hangs; None where it does not. Writes the stacks."""
    still = heart.still_for
    if not limit.is_over(heart) or peers.is_waited_for():
        return None
    missing = peers.missing() if heart.phase != WAITING else ""
    if heart.still_for <= still or over.is_set():  # it took seconds to ask the others
        return None
    kind = "data loading" if heart.phase == WAITING else "computing, or waiting for another process"
    line = f"step {heart.step}: {heart.phase} for {_time(heart.still_for)} ({kind})"
    line += f": {missing}" if missing else ""
    line += f"; what each thread does is in {stacks}; {limit.resumes} ({limit.key} is the limit)"
    with suppress(OSError), open(stacks, "w", encoding="utf-8") as file:
        file.write(f"{line}\n\n")
        file.flush()
        faulthandler.dump_traceback(file, all_threads=True)
    return PeerError(line)


def _end(reason: Reason, ended: Ended) -> NoReturn:
    with suppress(Exception):  # whatever it is, the process ends
        if not is_left_to_another(reason):
            shown = SHOW_CURSOR if sys.stderr.isatty() else ""
            print(f"{shown}{line_of(reason)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        ended(reason)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(exit_code_of(reason))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
