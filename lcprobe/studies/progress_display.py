"""Progress of a whole study on stderr: on a terminal two lines that are updated in place, elsewhere a plain line now
and then.

There is no thread: what is done calls `show`, as often as it likes.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lcprobe.studies.console import say, width_of

LINE_SECONDS = 15.0
"""Between plain lines."""
FIRST_SECONDS = 5.0
"""Before the first one."""
FRAME_SECONDS = 0.2
"""Between two states of the lines on a terminal."""


class ProgressDisplay:
    """A context that shows one state at a time. shown: False for processes that are not to say anything."""

    def __init__(self, shown: bool = True, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._shown, self._given, self._clock = shown, stream, clock
        self._next = clock() + FIRST_SECONDS
        self._live: Live | None = None

    def __enter__(self) -> "ProgressDisplay":
        stream = sys.stderr if self._given is None else self._given
        if self._shown and stream.isatty():
            self._next = 0.0
            console = Console(file=stream, width=width_of(stream), markup=False, highlight=False)
            # what is printed meanwhile goes above the lines; a stdout that goes elsewhere is left alone
            self._live = Live(
                console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty()
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, now: str, rest: str, share: float | None) -> None:
        """now: what is being done, and how far it is; rest: how long everything takes; share: of everything that is
        done, 0 to 1, None where that is not known. On a terminal `now` stands above a bar with `rest`; elsewhere both
        are a line."""
        whole = self._live is not None and share is not None and share >= 1  # the last state is always seen
        if not self._shown or (self._clock() < self._next and not whole):
            return
        if self._live is None:
            self._next = self._clock() + LINE_SECONDS
            say(f"{now}, {rest}" if rest else now, to_stderr=True)
            return
        self._next = self._clock() + FRAME_SECONDS
        line = Text(_with_room(now, self._live.console.width), no_wrap=True, overflow="ellipsis")
        if share is None:
            self._live.update(line, refresh=True)
            return
        tail = f"{share:.0%}" + (f", {rest}" if rest else "")
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(ProgressBar(total=1.0, completed=min(share, 1.0)), Text(tail))
        self._live.update(Group(line, bar), refresh=True)


def _with_room(now: str, width: int) -> str:
    """A state within a width, at the cost of the name before its colon."""
    name, colon, state = now.partition(": ")
    room = width - len(colon) - len(state)
    return now if len(now) <= width or room < 12 else f"{name[: room - 1]}…{colon}{state}"
