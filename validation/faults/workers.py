"""Workers of a launcher that fail, are killed, stand still or are pre-empted, and the launcher itself.

Local workers are forked from the launcher, as that is from this process, so that a fault can be put into one of them;
jobs of submitit and tasks of Ray are processes of their own, to which signals are sent.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lcprobe.cli.commands import evaluate_main, main, train_main
from lcprobe.files import read_json
from lcprobe.locks import Claims, children_of, is_gone
from lcprobe.studies.launchers import local
from lcprobe.studies.launchers.watching import watch
from lcprobe.studies.launchers.watching.state import study_state
from lcprobe.studies.launchers.work import training
from lcprobe.studies.launchers.work.failures import FAILURES
from lcprobe.studies.launchers.work.reports import read_reports
from lcprobe.training.module import Training
from validation.faults.harness import STEPS, Ended, Place, kill_self, started
from validation.kills.kinds import parent_of

RUNS = ("one", "two")
LOCAL = "launcher={type: local, workers: 2, retries: 1}"
LEASE = (0.2, 3.0)
"""Seconds between heartbeats, and after which a claim without one is free: in place of 15 and 180."""
ENDS = 15.0
"""Seconds in which a worker ends when nothing is left: in place of 120."""
LONG = 150
"""Steps of runs that signals from outside reach in the middle."""
SOURCE = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class WorkersFault:
    """A fault of a study of two runs that workers train, or probe; see `harness.Fault`.

    given: the launcher, and other settings; trained: the study is, and is probed; begun: run one has 8 steps; inject:
    is called in every worker before its command; befalls: does something to the launcher, a process by its number,
    from outside; failures: how often a worker's failure is noted, None where chance has a part in it; states: of the
    units of the study then, as `lcprobe status` has them, None where it goes on; steps: of a run; bit: whether the
    fault took effect, where nothing printed or noted shows it.
    """

    name: str
    done: str
    code: int
    says: str
    given: Sequence[str] = (LOCAL,)
    trained: bool = False
    begun: bool = False
    damage: Callable[[Place], None] | None = None
    inject: Callable[[Place], None] | None = None
    befalls: Callable[[Place, int], None] | None = None
    mend: Callable[[Place], None] | None = None
    failures: int | None = 0
    states: Sequence[str] | None = ("done", "done")
    steps: int = STEPS
    bit: Callable[[Place], bool] | None = None


class Forked:
    """In place of `subprocess.Popen` in the launcher: a worker that is forked from it."""

    def __init__(self, place: Place, inject: Callable[[Place], None] | None, command: Sequence[str], **given: Any):
        sys.stdout.flush()
        sys.stderr.flush()
        self._code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                for number in (1, 2):
                    os.dup2(given["stdout"].fileno(), number)
                sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.environ |= given["env"]
                torch.set_num_threads(1)
                if inject is not None:
                    inject(place)
                code = main(list(command[3:]))
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """See Popen."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, number: int) -> None:
        """See Popen."""
        os.kill(self.pid, number)


def launched(place: Place, fault: WorkersFault, words: Sequence[str]) -> Callable[[], Ended]:
    """Start the launcher's command; a function that waits for its end."""

    def prepare(place: Place) -> None:
        def start(command: Sequence[str], **given: Any) -> Forked:
            return Forked(place, fault.inject, command, **given)

        own = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
        local.subprocess = own  # type: ignore[attr-defined]
        Claims.__init__.__defaults__ = (*LEASE, *Claims.__init__.__defaults__[2:])  # type: ignore[index,misc]
        watch.END_SECONDS = ENDS
        paths = [str(SOURCE), str(SOURCE / "kernels"), os.environ.get("PYTHONPATH", "")]
        os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    given = str(place.folder / "runs" / "tiny") if fault.trained else str(place.config)
    return started(place, evaluate_main if fault.trained else train_main, [given, *words], prepare)


def befallen(place: Place, fault: WorkersFault, words: Sequence[str]) -> Ended:
    """The command with what befalls it."""
    wait = launched(place, fault, words)
    if fault.befalls is not None:
        fault.befalls(place, _child_of_this())
    return wait()


def workers(place: Place) -> list[int]:
    """The workers that run."""
    return [one.who.pid for one in read_reports(home(place)).values() if is_gone(one.who) is False]


def wait_for_workers(place: Place) -> None:
    """Until none runs, also of a launcher that was killed."""
    _until(lambda: not workers(place))


def home(place: Place) -> Path:
    """The folder of the study."""
    return place.folder / "runs" / "tiny"


def noted(place: Place) -> int:
    """Failures that are noted."""
    found = [*home(place).glob(f"*/{FAILURES}")]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in found)


def states(place: Place) -> list[str]:
    """Of the units, as `lcprobe status` has them, which is asked, too."""
    with redirect_stdout(StringIO()) as printed:
        code = main(["status", str(home(place))])
    found = study_state(home(place)).units
    shown = printed.getvalue()
    if code or any(unit.why not in shown for unit in found if unit.state != "done"):
        raise RuntimeError(f"lcprobe status ended with {code}: {shown}")
    return sorted(unit.state for unit in found)


def steps_made(place: Place) -> int:
    """Of all runs, by all processes in which faults are; 0 where none were."""
    return sum(path.stat().st_size for path in place.folder.glob("made-*"))


def in_run(name: str, step: int, do: Callable[[Training], None], times: int = 1) -> Callable[[Place], None]:
    """Do something in the worker that trains a run, in the middle of a step, so many times in all workers."""

    def inject(place: Place) -> None:
        plain, clip, now = training.train_run, Training.configure_gradient_clipping, [""]
        count = place.folder / "times"

        def train_run(run: Any, *args: Any, **given: Any) -> Any:
            now[0] = run.name
            try:
                return plain(run, *args, **given)
            finally:
                _lift_limit()

        def clipping(self: Training, *args: Any, **given: Any) -> None:
            if (now[0], self.progress.step) == (name, step) and _size(count) < times:
                _add(count)
                do(self)
            clip(self, *args, **given)
            _add(place.folder / f"made-{now[0]}")

        training.train_run = train_run
        Training.configure_gradient_clipping = clipping  # type: ignore[method-assign]

    return inject


def _add(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b".")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)


def _child_of_this() -> int:
    return children_of(os.getpid())[-1]


def _stop(module: Training) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _kill_launcher(module: Training) -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def _full_disk(module: Training) -> None:
    """No file of this process may grow beyond 20 kB, until the run has ended: no checkpoint fits."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def _lift_limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _another_rate(place: Place) -> None:
    path = place.run / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.01", "lr: 0.03"))


def _the_rate_again(place: Place) -> None:
    path = place.run / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.03", "lr: 0.01"))


READ_ONLY = Path("/sys/kernel")
"""A folder in which nobody may create a file, not even root."""


def _read_only(place: Place) -> None:
    (home(place) / "records").symlink_to(READ_ONLY)


def _writable(place: Place) -> None:
    (home(place) / "records").unlink()


def _in_the_middle(place: Place) -> bool:
    """Whether run one has a checkpoint and is not done."""
    try:
        done = read_json(place.run / "status.json")["status"] == "done"
    except (OSError, ValueError, KeyError):
        done = False
    return any(place.saved.glob("step-*/manifest.json")) and not done


def _preempt(place: Place, launcher: int) -> None:
    """SIGUSR2 to a job of submitit, as SLURM sends it: the child of the process that controls it."""
    _until(lambda: _in_the_middle(place))
    for job in (job for controller in children_of(launcher) for job in children_of(controller)):
        os.kill(job, signal.SIGUSR2)


def _queued_again(place: Place) -> bool:
    logs = (home(place) / "work" / "logs" / "slurm").glob("*_log.*")
    return any("Requeued job" in path.read_text(errors="replace") for path in logs)


def _kill_task(place: Place, launcher: int) -> None:
    """SIGKILL to the process of a Ray task, as Ray's memory monitor sends it: the parent of a worker."""
    _until(lambda: _in_the_middle(place))
    for pid in workers(place)[:1]:
        with suppress(ProcessLookupError):
            os.kill(parent_of(pid), signal.SIGKILL)


def write_two(place: Place) -> None:
    """A study of two runs in place of one."""
    text = place.config.read_text()
    assert text.count("one: {}") == 1, text
    place.config.write_text(text.replace("one: {}", "one: {}\n    two:\n      train: {lr: 0.02}"))


SLURM = "launcher={type: slurm, executor: local, jobs: 2, gpus_per_job: 0, retries: 1}"
RAY = "launcher={type: ray, workers: 2, retries: 1}"
FAULTS = (
    WorkersFault(
        "bad input of a worker",
        "the folder of one of two runs has another learning rate",
        2,
        "one: train.lr: given 0.01; allowed: 0.03 as in",
        begun=True,
        damage=_another_rate,
        mend=_the_rate_again,
        failures=1,
        states=("done", "failed"),
    ),
    WorkersFault(
        "a worker dies again and again",
        "SIGKILL in step 6 of one of two runs, each time; launcher.retries=1",
        75,
        "one: killed by SIGKILL (mostly for memory); it had printed: resuming one at step 4 of 12, process",
        inject=in_run("one", 6, kill_self, 99),
        failures=2,
        states=("done", "failed"),
    ),
    WorkersFault(
        "a worker stands still",
        "SIGSTOP in step 6 of one of two runs; its claim is free after 3 s (180 s)",
        0,
        "ended, as nothing is left and it goes on",
        inject=in_run("one", 6, _stop),
        failures=1,
    ),
    WorkersFault(
        "disk full in a worker",
        "no file may exceed 20 kB from step 5 of one of two runs, each time; launcher.retries=1",
        74,
        "one: [Errno 28] checkpoint not written (",
        given=(LOCAL, "train.checkpoint_every=256"),
        inject=in_run("one", 5, _full_disk, 99),
        failures=2,
        states=("done", "failed"),
    ),
    WorkersFault(
        "the launcher is killed",
        "SIGKILL to the launcher when a worker is in step 6",
        -9,
        "",
        inject=in_run("one", 6, _kill_launcher),
        states=None,
    ),
    WorkersFault(
        "records that cannot be written",
        "the folder of records is read-only while workers probe",
        74,
        "Permission denied",
        trained=True,
        damage=_read_only,
        mend=_writable,
        failures=None,
        states=("done", "done", "failed", "failed"),
    ),
    WorkersFault(
        "a pre-empted job",
        "SIGUSR2, as SLURM sends it, to the jobs of submitit's local executor in the middle of runs",
        0,
        "",
        given=(SLURM,),
        befalls=_preempt,
        steps=LONG,
        bit=_queued_again,
    ),
    WorkersFault(
        "Ray ends a task for memory",
        "SIGKILL to the process of a Ray task, as Ray's memory monitor sends it, in the middle of a run",
        0,
        "",
        given=(RAY,),
        befalls=_kill_task,
        failures=1,
        steps=LONG,
    ),
)
