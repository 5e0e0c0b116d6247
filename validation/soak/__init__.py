"""A soak: one process trains, probes and reports a tiny study over and over; its memory, open files and threads are
sampled every few seconds, and what a round leaves at its end.

    python -m validation soak minutes=30

The samples lie in a file, so that they do not grow in the memory that they measure. Cycles of objects are collected
at the end of each round: what Python has not looked for yet is no leak. When something grows is stated in
`judgement`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.command import Rows
from lcprobe.errors import require
from validation.soak.judgement import DAY, SHARE, Sample, table
from validation.soak.levels import at_any_time, at_the_end
from validation.soak.study import draw_figures, rounds_of

TITLE = "soak: memory, open files and threads of one process that trains and probes over and over"
OPTIONS = ("minutes", "every", "figures")
LEAST_ROUNDS = 8


def measure(options: dict[str, str]) -> Rows:
    """A row for each of memory and its parts, open files, threads and objects: levels, slope, and what it says.
    options: minutes (30), every (3 seconds a sample), figures (4000: drawn before the rounds)."""
    minutes, every, figures = (float(options.get(name, by)) for name, by in zip(OPTIONS, (30, 3, 4000), strict=True))
    require("minutes", minutes, minutes >= 0.5, "0.5 or more")
    with TemporaryDirectory() as folder:
        one_round = rounds_of(Path(folder))
        before = draw_figures(one_round, round(figures))
        print(f"{before} figures a round; {figures:,.0f} drawn", flush=True)
        end = time.monotonic() + 60 * minutes
        over = lambda done: time.monotonic() >= end  # noqa: E731
        samples = soaked(one_round, over, every, Path(folder) / "samples")
    done = 1 + max(sample.round for sample in samples)
    require("minutes", minutes, done >= LEAST_ROUNDS, f"time for at least {LEAST_ROUNDS} rounds ({done} were done)")
    return table(samples)


def notes(rows: Rows) -> list[str]:
    """What the columns say, and what grows."""
    grows = [row["what"] for row in rows if row["verdict"] == "grows"]
    return [
        "begin: at half of the rounds; per 1,000 rounds, low, high: slope over the second half, with its 95 % "
        f"interval; first half: its slope. grows: low is above zero, and {DAY:,} rounds (a day on an idle core) at "
        f"that slope are more than {SHARE:.0%}, of resident memory where it is memory, of its own level else",
        f"growing: {', '.join(grows)}" if grows else "nothing grows",
    ]


def soaked(one_round: Callable[[], None], over: Callable[[int], bool], every: float, file: Path) -> list[Sample]:
    """Call `one_round` until it is over, of which the number of rounds that are done is told. The samples, which lie
    in `file` meanwhile: one every so many seconds, and one at the end of each round."""
    done = 0
    with file.open("w", encoding="utf-8", buffering=1) as lines:
        writing = threading.Lock()

        def write(values: dict[str, float]) -> None:
            with writing:
                lines.write(json.dumps([done, values]) + "\n")

        with _every(every, lambda: write(at_any_time())):
            while not over(done):
                one_round()
                write(at_any_time() | at_the_end())
                done += 1
    return [sample for sample in _read(file) if sample.round < done]  # none after the last


def _read(file: Path) -> Iterator[Sample]:
    for line in file.read_text(encoding="utf-8").splitlines():
        number, values = json.loads(line)
        yield Sample(number, values)


@contextmanager
def _every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Calls every so many seconds, in a thread."""
    ended = threading.Event()

    def calls() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=calls, name="samples", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
