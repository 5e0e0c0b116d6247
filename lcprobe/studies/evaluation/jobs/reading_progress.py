"""How much of prompts from elsewhere has been read: of `lcprobe explain`, `--harness` and `--frozen`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.words import short


class ReadingProgress:
    """Shows the prompts of one call after another, each with a display of its own, since what runs between them may
    write to the terminal, too. what: whose prompts they are, set before each call."""

    def __init__(self, display: ProgressDisplay | None = None):
        self.what = ""
        self._display = ProgressDisplay() if display is None else display

    @contextmanager
    def watch(self, total: int) -> Iterator[Callable[[int], None]]:
        """As of Continuer."""

        def tell(read: int) -> None:
            share = read / max(total, 1)
            self._display.show(
                f"{self.what}: {short(read)} of {short(total)} prompt tokens read", f"{share:.0%}", share
            )

        with self._display:
            yield tell
