"""How far probing is over all models, and how long it still takes.

Several processes may share a study: what all of them have done is counted in the stores, and the time left is that of
what is left at the smoothed pace of all since this one began.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import exp

from lcprobe.probing.progress import Done, ProbeProgress, amount_of_units
from lcprobe.studies.evaluation.jobs.job import Job
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.words import counted, duration

LOOK_SECONDS = 5.0
"""Between two looks at what other processes have finished."""
MIN_SECONDS, MIN_SHARE = 3.0, 0.02
"""Time and share of the tokens after which the time left is told."""
SMOOTHED_SECONDS = 30.0
"""After so long, what was before counts e times less."""


@dataclass(frozen=True)
class Amount:
    """Of one model: of all samples, and of finished units of work."""

    whole: Done
    done: Done


def amount_of(job: Job) -> Amount:
    """What the stores have of a job."""
    work = job.work
    unfinished = {i for group in work.groups for i in work.unfinished(group, job.store)}
    whole = amount_of_units(work.plan.units)
    return Amount(whole, whole.plus(amount_of_units(work.plan.units[i] for i in unfinished), -1))


class Pace:
    """Tokens a second of a process that began at `begin` with so many tokens to do, smoothed: loading models and
    short units make it uneven. Nothing is known before MIN_SECONDS have passed and MIN_SHARE is done."""

    def __init__(self, begin: float, tokens: int):
        self._begin, self._least = begin, max(MIN_SHARE * tokens, 1)
        self._last: tuple[float, int] | None = None
        self._pace = 0.0

    def time_left(self, now: float, done: int, left: int) -> float | None:
        """Seconds for `left` tokens. done: tokens since it began."""
        if now - self._begin < MIN_SECONDS or done < self._least:
            return None
        if self._last is None:
            self._last, self._pace = (now, done), done / (now - self._begin)
        elif now > self._last[0]:
            seconds, tokens = now - self._last[0], max(done - self._last[1], 0)
            self._pace += (1 - exp(-seconds / SMOOTHED_SECONDS)) * (tokens / seconds - self._pace)
            self._last = now, done
        return left / self._pace if self._pace > 0 else None


class ProbingProgress:
    """Shows the progress of jobs."""

    def __init__(self, display: ProgressDisplay, jobs: Sequence[Job], clock: Callable[[], float] = time.monotonic):
        self._display, self._jobs, self._clock = display, list(jobs), clock
        self._looked = clock()
        self._amounts = {job.variant.name: amount_of(job) for job in jobs}
        self._first = sum(amount.done.tokens for amount in self._amounts.values())
        whole = sum(amount.whole.tokens for amount in self._amounts.values())
        self._pace = Pace(clock(), whole - self._first)

    def of(self, job: Job) -> ProbeProgress:
        """The progress of one job."""
        self._look()
        name = job.variant.name
        number = 1 + [other.variant.name for other in self._jobs].index(name)
        head = f"probing {name}" + (f" (model {number} of {len(self._jobs)})" if len(self._jobs) > 1 else "")

        def show(done: Done, label: str) -> None:
            if self._clock() - self._looked > LOOK_SECONDS:
                self._look()
            others = [amount for other, amount in self._amounts.items() if other != name]
            whole = reduce(Done.plus, (amount.whole for amount in self._amounts.values()))
            read = reduce(Done.plus, (amount.done for amount in others), done)
            left = self._pace.time_left(self._clock(), read.tokens - self._first, whole.tokens - read.tokens)
            rest = f"{read.cells:,} of {counted(whole.cells, 'cell')}"
            rest += "" if left is None else f", {duration(left)} left"
            self._display.show(f"{head}: {label}", rest, read.tokens / max(whole.tokens, 1))

        return show

    def _look(self) -> None:
        self._looked = self._clock()
        self._amounts = {job.variant.name: amount_of(job) for job in self._jobs}
