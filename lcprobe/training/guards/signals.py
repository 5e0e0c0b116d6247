"""Signals as a thread sees them. Python's own handlers run in the main thread, between two steps of its code: not
while it waits inside a library, such as for messages of other processes."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lcprobe.errors import TOLD_TO_END, error_of_signal

Told = Callable[[], KeyboardInterrupt | None]
"""What the first signal so far raises, wherever the main thread is; None: there was none."""


@contextmanager
def told_by_signals() -> Iterator[Told]:
    """Signals that tell this process to end, in the block, those that have a handler. Outside of the main thread
    there are none to be seen."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    found: list[KeyboardInterrupt] = []
    over: list[bool] = []

    def told() -> KeyboardInterrupt | None:
        with suppress(BlockingIOError):
            if over:
                return None
            numbers = [n for n in os.read(reader, 64) if n in (signal.SIGINT, *TOLD_TO_END)]
            found.extend(map(error_of_signal, numbers))
        return found[0] if found else None

    before: int | None = None
    with suppress(ValueError):  # not in the main thread
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield told
    finally:
        over.append(True)
        if before is not None:
            signal.set_wakeup_fd(before)
        os.close(writer)
        os.close(reader)
