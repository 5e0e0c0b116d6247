"""How far probing is over all models, and how long it still takes.

Several processes may share a study: what all of them have done is counted in the stores, and the time left is that of
what is left at the pace of all since this one began.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lcprobe.probing.progress import ProbeProgress
from lcprobe.studies.evaluation.jobs.job import Job
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.words import counted, duration

LOOK_SECONDS = 5.0
"""Between two looks at what other processes have finished."""


@dataclass(frozen=True)
class Amount:
    """Of one model. tokens: of all samples; tokens_done, units_done: of finished units."""

    tokens: int
    tokens_done: int
    units: int
    units_done: int


def amount_of(job: Job) -> Amount:
    """What the stores have of a job."""
    work = job.work
    unfinished = {i for group in work.groups for i in work.unfinished(group, job.store)}
    tokens = [unit.length * sum(n for _, n in unit.cells) for unit in work.plan.units]
    text = bool(job.text_unit)
    done = len(tokens) - len(unfinished) + (text and job.texts.has(job.text_unit))
    return Amount(sum(tokens), sum(tokens) - sum(tokens[i] for i in unfinished), len(tokens) + text, done)


def time_left(seconds: float, done: int, left: int) -> float | None:
    """What is left at the pace of what was done in so many seconds; None before anything is."""
    return None if done <= 0 else seconds / done * left


class ProbingProgress:
    """Shows the progress of jobs."""

    def __init__(self, display: ProgressDisplay, jobs: Sequence[Job], clock: Callable[[], float] = time.monotonic):
        self._display, self._jobs, self._clock = display, list(jobs), clock
        self._begin, self._looked = clock(), clock()
        self._amounts = {job.variant.name: amount_of(job) for job in jobs}
        self._first = sum(amount.tokens_done for amount in self._amounts.values())

    def of(self, job: Job) -> ProbeProgress:
        """The progress of one job."""
        self._look()
        name = job.variant.name
        number = 1 + [other.variant.name for other in self._jobs].index(name)
        head = f"probing {name}" + (f" (model {number} of {len(self._jobs)})" if len(self._jobs) > 1 else "")

        def show(done: int, total: int, label: str) -> None:
            if self._clock() - self._looked > LOOK_SECONDS:
                self._look()
            others = [amount for other, amount in self._amounts.items() if other != name]
            own = self._amounts[name]
            tokens = sum(amount.tokens for amount in others) + total
            read = sum(amount.tokens_done for amount in others) + done
            units = counted(own.units + sum(amount.units for amount in others), "unit")
            finished = own.units_done + sum(amount.units_done for amount in others)
            left = time_left(self._clock() - self._begin, read - self._first, tokens - read)
            rest = f"{finished:,} of {units}" + ("" if left is None else f", {duration(left)} left")
            self._display.show(f"{head}: {label}", rest, read / max(tokens, 1))

        return show

    def _look(self) -> None:
        self._looked = self._clock()
        self._amounts = {job.variant.name: amount_of(job) for job in self._jobs}
