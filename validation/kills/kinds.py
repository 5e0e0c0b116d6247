"""What is killed, and when: one process, ranks of a run, probing processes, a launcher and its workers.

Every kind goes on with one study, again and again, until it is done; then the study is compared and another begins,
until so many kills have hit. A kill counts where the attempt had made a step, or a record, of its own and ended by
the signal. Moments are drawn from a uniform distribution over a share of what the uninterrupted study takes, or are
named: while a checkpoint is written, and when a run has written its last one.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.locks import is_gone
from lcprobe.studies.launchers.work.orders import ProbeOrder, write_order
from lcprobe.studies.launchers.work.reports import Report, read_reports
from lcprobe.studies.launchers.work.worker import work
from lcprobe.studies.planning.plan import StudyPlan
from lcprobe.studies.tracking import read_metrics
from lcprobe.training.checkpoint import latest, load_progress
from validation.kills.attempts import Attempt
from validation.kills.outcome import Outcome, compare, outcome_of
from validation.kills.study import DIVISIONS, Study, train

KILL = signal.SIGKILL
SOFT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
POLL, POLL_SAVE = 0.01, 0.0005
SHARE = 0.15
"""Of the uninterrupted study's time, over which random moments are drawn."""
MOST_ROUNDS = 40
WORKERS = ["launcher={type: local, workers: 2, retries: 1000}"]
JOBS = ["launcher={type: slurm, executor: local, jobs: 2, gpus_per_job: 0, retries: 1000}"]
TASKS = ["launcher={type: ray, workers: 2, retries: 1000}"]


@dataclass
class Tally:
    """What happened in the attempts of a kind. faults: of finished studies, in words."""

    kills: int = 0
    by_signal: dict[str, int] = field(default_factory=dict)
    in_a_save: int = 0
    attempts: int = 0
    steps_again: int = 0
    studies: int = 0
    apart: float = 0.0
    faults: list[str] = field(default_factory=list)

    def hit(self, number: signal.Signals) -> None:
        """Count a moment of killing, however many processes it ends."""
        self.kills += 1
        self.by_signal[number.name] = self.by_signal.get(number.name, 0) + 1


@dataclass(frozen=True)
class Base:
    """The uninterrupted study. seconds: from its first step, or record, to its last."""

    outcome: Outcome
    seconds: float


class Killing:
    """The state of one kind: its study, its dice, what it has done."""

    def __init__(self, study: Study, seed: str):
        self.study, self.dice, self.tally = study, random.Random(seed), Tally()
        self.log = study.home / "printed.log"

    def uninterrupted(self, start: Callable[[], Attempt], progress: Callable[[], float]) -> Base:
        """Run to the end, and read what it comes to."""
        attempt, seen, first, last = start(), progress(), 0.0, 0.0

        def grown() -> bool:
            nonlocal seen, first, last
            before, seen = seen, progress()
            if seen > before:
                first, last = first or time.monotonic(), time.monotonic()
            return False

        attempt.wait(grown, POLL)
        attempt.finish()
        outcome = outcome_of(self.study.folder)
        for name, run in outcome.runs.items():
            told = len([row for row in run.history if "tokens" in row])
            if not len(run.rows) == told == run.step == self.study.steps:
                raise RuntimeError(f"{name}: the uninterrupted run itself has not every step in metrics.csv and W&B")
        return Base(outcome, last - first)

    def finished(self, base: Base, exact: bool = True) -> None:
        """Compare a finished study with the uninterrupted one."""
        found = compare(outcome_of(self.study.folder), base.outcome, exact)
        self.tally.studies += 1
        self.tally.apart = max(self.tally.apart, found.apart)
        self.tally.faults += found.faults

    def has_begun(self, attempt: Attempt, progress: Callable[[], float]) -> bool:
        """Wait until an attempt has made something of its own; False: it ended before."""
        seen = progress()

        def grown() -> bool:
            nonlocal seen
            before, seen = seen, progress()
            return seen > before

        return attempt.wait(grown, POLL)

    def pause(self, base: Base, attempt: Attempt | None = None) -> None:
        """Until a random moment."""
        until = time.monotonic() + self.dice.uniform(0, SHARE * base.seconds)
        while time.monotonic() < until and (attempt is None or attempt.alive):
            time.sleep(0.005)

    # of training

    def rows(self) -> float:
        """Rows of all runs' metrics."""
        return sum(_lines(path) for path in self.study.folder.glob("*/metrics.csv"))

    def saving(self) -> set[str]:
        """Temporary folders of checkpoints that are being written, or were."""
        return {path.name for path in self.study.folder.glob("*/checkpoints/.tmp-*")}

    def ended_runs(self) -> int:
        """Runs whose last checkpoint is written; what comes then is tracking, and saying that they are done."""
        return len([*self.study.folder.glob(f"*/checkpoints/step-{self.study.steps:08d}")])

    def behind(self) -> int:
        """Steps that were made and are not in the newest checkpoint."""
        behind = 0
        for path in self.study.folder.glob("*/metrics.csv"):
            rows, newest = read_metrics(path), latest(path.parent / "checkpoints")
            saved = 0 if newest is None else load_progress(newest).step
            behind += max(0, int(rows[-1].get("step", 0)) - saved) if rows else 0
        return behind

    def train_killed(self, plans: dict[str, StudyPlan], base: Base, n: int, moments: Sequence[str]) -> None:
        """Train with kills until n have hit and the study at hand is done. plans: one of which each attempt takes;
        moments: of which each kill takes one: random, save, end, or signal."""
        names = sorted(plans)
        for _ in range(MOST_ROUNDS):
            if self.tally.kills >= n:
                return
            self.clear()
            for name in names[:1]:
                self.study.plan(name)  # study.yaml
            finished = False
            while not finished:
                name = self.dice.choice(names)
                attempt = self.start_training(plans[name], DIVISIONS[name].processes)
                if self.tally.kills >= n:
                    attempt.finish()
                else:
                    self._kill_training(attempt, base, self.dice.choice(moments))
                finished = not any(attempt.codes)
            self.finished(base, exact=len(names) == 1)

    def start_training(self, plan: StudyPlan, processes: int) -> Attempt:
        """An attempt at a plan."""
        self.tally.attempts += 1
        return Attempt(processes, train, [plan], self.log)

    def _kill_training(self, attempt: Attempt, base: Base, moment: str) -> None:
        before, done = self.saving(), self.ended_runs()
        if not self.has_begun(attempt, self.rows):
            _failed(attempt)
            return
        if moment == "save":
            seen: set[str] = set()
            after = self.dice.choice((0, 1, 1, 2))

            def now() -> bool:
                seen.update(self.saving() - before)
                return len(seen) > after

            attempt.wait(now, POLL_SAVE)
            time.sleep(self.dice.uniform(0, 0.006))
        elif moment == "end":
            attempt.wait(lambda: self.ended_runs() > done, POLL_SAVE * 4)
            time.sleep(self.dice.uniform(0, 1.0))
        else:
            self.pause(base, attempt)
        number = self.dice.choice(SOFT) if moment == "signal" else KILL
        everybody = list(range(len(attempt.processes)))
        victims = everybody if self.dice.random() < 0.4 else [self.dice.choice(everybody)]
        if attempt.hit(number, victims):
            self.tally.hit(number)
            self.tally.in_a_save += bool(self.saving() - before) and number == KILL
            self.tally.steps_again += self.behind()
        else:
            _failed(attempt)

    def clear(self) -> None:
        """Nothing is left of the study; its text is."""
        shutil.rmtree(self.study.folder, ignore_errors=True)

    # of probing

    def recorded(self) -> float:
        """Bytes of records."""
        total = 0
        with suppress(OSError):
            for path in (self.study.folder / "records").iterdir():
                with suppress(OSError):
                    total += path.stat().st_size
        return total

    def again_trained(self, trained: Path) -> None:
        """The study as it was when it was trained."""
        self.clear()
        shutil.copytree(trained, self.study.folder, symlinks=True)

    def start_probing(self, *words: str) -> Attempt:
        """`lcprobe evaluate`."""
        self.tally.attempts += 1
        return Attempt(1, evaluate_main, [[str(self.study.folder), *words]], self.log)

    def probe_killed(self, trained: Path, base: Base, n: int) -> None:
        """Probe by one process until n kills have hit."""
        for _ in range(MOST_ROUNDS):
            if self.tally.kills >= n:
                return
            self.again_trained(trained)
            while True:
                attempt = self.start_probing()
                if self.tally.kills < n and self.has_begun(attempt, self.recorded):
                    self.pause(base, attempt)
                    if attempt.hit(KILL, [0]):
                        self.tally.hit(KILL)
                        continue
                attempt.finish()
                break
            self.finished(base)

    def share_killed(self, trained: Path, base: Base, n: int) -> None:
        """Probe by two processes that share the store; one is killed, or both, and others are started."""
        for _ in range(MOST_ROUNDS):
            if self.tally.kills >= n:
                return
            self.again_trained(trained)
            write_order(self.study.folder, ProbeOrder(folders=(str(self.study.folder),), retries=1000))
            at_work: list[Attempt] = []
            while True:
                at_work = [one for one in at_work if one.alive or _failed(one)]
                while len(at_work) < 2 and self.tally.kills < n:
                    self.tally.attempts += 1
                    at_work.append(Attempt(1, work, [self.study.folder, ["probe"]], self.log))
                if self.tally.kills >= n or not self.has_begun(at_work[-1], self.recorded):
                    break
                self.pause(base)
                victims = at_work if self.dice.random() < 0.3 else [self.dice.choice(at_work)]
                struck = [one.hit(KILL, [0]) for one in victims]
                if any(struck):
                    self.tally.hit(KILL)
                at_work = [one for one in at_work if one.alive]
            for one in at_work:
                one.finish()
            self.start_probing_of_rest()
            self.finished_records(base)

    def start_probing_of_rest(self) -> None:
        """What is left, of which one process alone can be sure."""
        self.tally.attempts += 1
        Attempt(1, work, [self.study.folder, ["probe"]], self.log).finish()

    def finished_records(self, base: Base) -> None:
        """Compare records alone: workers write no report, and W&B is told of a probe by who does."""
        own = outcome_of(self.study.folder)
        found = compare(Outcome(base.outcome.runs, own.records), base.outcome)
        self.tally.studies += 1
        self.tally.faults += found.faults

    # of launchers

    def launch_killed(self, base: Base, n: int, kind: str, trained: Path | None = None) -> None:
        """Train or probe by two workers of a launcher; a worker is killed, or the launcher, which is started again
        while its workers go on."""
        progress = self.rows if kind == "train" else self.recorded
        for _ in range(MOST_ROUNDS):
            if self.tally.kills >= n:
                return
            self.clear() if trained is None else self.again_trained(trained)
            launcher = self.launch(kind)
            while launcher.alive and self.tally.kills < n:
                if not self.has_begun(launcher, progress):
                    break
                self.pause(base, launcher)
                if self.dice.random() < 0.3:
                    if launcher.hit(KILL, [0]):
                        self.tally.hit(KILL)
                        launcher = self.launch(kind)
                    continue
                busy = [one for one in self.workers() if one.kind == kind and one.unit]
                if busy:
                    with suppress(ProcessLookupError):
                        os.kill(self.dice.choice(busy).who.pid, KILL)
                        self.tally.hit(KILL)
                        self.tally.steps_again += self.behind() if kind == "train" else 0
            launcher.finish()
            for one in self.workers():  # of launchers that were killed
                with suppress(ProcessLookupError):
                    os.kill(one.who.pid, KILL)
            self.finished(base)

    def elsewhere_killed(self, base: Base, n: int, words: Sequence[str]) -> None:
        """Train by workers that are jobs or tasks; one of them is killed, or the process that has started it."""
        for _ in range(MOST_ROUNDS):
            if self.tally.kills >= n:
                return
            self.clear()
            launcher = self.launch("train", words)
            while self.tally.kills < n and self.has_begun(launcher, self.rows):
                self.pause(base, launcher)
                busy = [one.who.pid for one in self.workers() if one.unit]
                if busy:
                    worker = self.dice.choice(busy)
                    with suppress(OSError):
                        os.kill(self.dice.choice([worker, parent_of(worker)]), KILL)
                        self.tally.hit(KILL)
                        self.tally.steps_again += self.behind()
            launcher.finish()
            self.finished(base)

    def launch(self, kind: str, words: Sequence[str] = WORKERS) -> Attempt:
        """The launcher."""
        self.tally.attempts += 1
        main, given = (train_main, self.study.config) if kind == "train" else (evaluate_main, self.study.folder)
        return Attempt(1, main, [[str(given), *words]], self.log)

    def workers(self) -> list[Report]:
        """Living ones."""
        return [one for one in read_reports(self.study.folder).values() if is_gone(one.who) is False]


def _failed(attempt: Attempt) -> bool:
    if any(code not in (None, 0) for code in attempt.codes):
        raise RuntimeError(f"exit codes {attempt.codes}: {attempt.said()}")
    return False


def parent_of(pid: int) -> int:
    """The number of the process that has started another. Raises OSError where that is gone. See proc(5), stat."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
