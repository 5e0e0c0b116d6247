"""What a job of SLURM runs, as submitit calls it: workers, or one process of a run, as children.

When a job is about to end, submitit calls `checkpoint`: the children are told to save, end with 75, and the job goes
into the queue again, under the same id. When it is cancelled, SIGTERM tells them to save, too, and the job ends.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcprobe.errors import StoppedEarly
from lcprobe.locks import this_process
from lcprobe.studies.launchers.contract import RunTask
from lcprobe.studies.launchers.local import VISIBLE, visible_gpus
from lcprobe.studies.launchers.work.failures import FAILURES, append_failure, failure_of
from lcprobe.studies.launchers.work.requeue import goes_on


class Children:
    """The processes that a job has started. They are told to end once, whoever asks, and however often: a second
    signal would end them without saving."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._once, self._starting, self._asked = [True], False, False

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Children are started in the block. From then on they are told of a SIGTERM; it is submitit's to handle
        other signals."""
        self._starting = True
        signal.signal(signal.SIGTERM, self._terminate)
        yield
        self._starting = False
        if self._asked:
            self.tell()

    def start(self, command: Sequence[str], own: Mapping[str, str] | None = None) -> None:
        """Start one, unless all are to end. own: of its environment."""
        if not self._asked:
            self._running.append(subprocess.Popen(command, env={**os.environ, **(own or {})}))

    def ended(self) -> int:
        """Wait; the first exit code that is not 0, that of a stop where none was begun. Whatever ends this process
        ends its children."""
        if not self._running:
            return StoppedEarly.exit_code
        try:
            codes = [child.wait() for child in self._running]
        except BaseException:
            self.stop()
            raise
        return next((code for code in codes if code != 0), 0)

    def stop(self) -> None:
        """Tell them to end, and wait; also from the handler of a signal that has interrupted `ended`, whose lock is
        held: Popen.wait would wait for it."""
        self.tell()
        for child in self._running:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    def tell(self) -> None:
        """Tell them to save and end."""
        with suppress(IndexError):
            self._once.pop()  # which no handler of a signal interrupts: one of those who ask goes on
            for child in self._running:
                child.send_signal(signal.SIGTERM)

    def _terminate(self, number: int, frame: object) -> None:
        self._asked = True
        if not self._starting:  # else all of them are told once all are there
            self.tell()


@dataclass
class WorkerJob:
    """Workers, which share out a job's GPUs. Returns the exit code of the first that did not end with 0. study,
    retries: for `goes_on`."""

    command: tuple[str, ...]
    count: int
    devices: int
    study: Path
    retries: int
    _children: Children = field(default_factory=Children)

    def __call__(self) -> int:
        with self._children.starting():
            gpus = visible_gpus()
            for number in range(self.count):
                own = gpus[number * self.devices : (number + 1) * self.devices]
                self._children.start(self.command, {VISIBLE: ",".join(own)} if own else {})
        return self._children.ended()

    def checkpoint(self) -> Any:
        """Called by submitit when the job is about to end: it goes on as a new one, or None."""
        self._children.stop()
        again = WorkerJob(self.command, self.count, self.devices, self.study, self.retries)
        return _submission(again, self.study, self.retries)


@dataclass
class RankJob:
    """What each task of a job of several nodes runs: one process of a run."""

    run: RunTask
    study: Path
    retries: int
    _children: Children = field(default_factory=Children)

    def __call__(self) -> int:
        from submitit.helpers import TorchDistributedEnvironment

        with self._children.starting():
            ranks = TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
            self._children.start(self.run.command)
        code = self._children.ended()
        if ranks.rank == 0 and code not in (0, StoppedEarly.exit_code):
            from lcprobe.training.checkpoint import newest_progress  # imports torch

            folder, why = self.run.folder, f"process 0 of {ranks.world_size} ended"
            saved = newest_progress(folder / "checkpoints").step
            failure = failure_of(self.run.name, this_process(), code, why, saved, self.run.launch, self.run.settings)
            append_failure(folder / FAILURES, failure)
        return code

    def checkpoint(self) -> Any:
        """As that of WorkerJob."""
        self._children.stop()
        return _submission(RankJob(self.run, self.study, self.retries), self.study, self.retries)


def _submission(job: WorkerJob | RankJob, study: Path, retries: int) -> Any:
    """What submitit puts into the queue again; None: nothing, as nothing was saved for too long."""
    from submitit import JobEnvironment
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(job) if goes_on(study, JobEnvironment().job_id, retries) else None
