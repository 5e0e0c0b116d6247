"""Jobs of SLURM through submitit's executor of this machine, with a worker that does little: what its end means, and
that a pre-empted job goes on as the same job."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.studies.launchers import slurm_jobs
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.studies.launchers.contract import Task
from lcprobe.studies.launchers.slurm import SlurmWorker
from lcprobe.studies.launchers.watching.watch import Watch

pytest.importorskip("submitit")

WORKER = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    (folder / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
if (folder / "saved").exists():
    (folder / "done").touch()
    sys.exit(0)
(folder / "began").write_text(str(os.getpid()))
if (folder / "short").exists():
    sys.exit(int((folder / "short").read_text()))
time.sleep(60)
"""


@dataclass(frozen=True)
class Little(Task):
    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", WORKER, str(self.folder)]


COUNTS = """
import os, pathlib, signal, sys, time
path = pathlib.Path(f"{sys.argv[1]}-{os.getpid()}")
def note(*_):
    with open(path, "a") as file:
        file.write("told ")
signal.signal(signal.SIGTERM, note)
path.touch()
while not path.read_text():
    time.sleep(0.02)
time.sleep(0.5)
sys.exit(75)
"""
FORK = multiprocessing.get_context("fork")


def told(folder: Path, signals: int, first: bool) -> tuple[int, list[str]]:
    """How a job ends, and what its two workers were told. first: it is cancelled before it has any."""

    def gpus() -> list[str]:
        for _ in range(signals * first):
            os.kill(os.getpid(), signal.SIGTERM)
        return []

    def job() -> None:
        slurm_jobs.visible_gpus = gpus
        os._exit(slurm_jobs.WorkerJob((sys.executable, "-c", COUNTS, f"{folder}/told"), 2, 1, folder, 2)())

    process = FORK.Process(target=job)
    process.start()
    if not first:
        until(lambda: len(list(folder.glob("told-*"))) == 2)
        for _ in range(signals):
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.1)
    process.join()
    return process.exitcode, [path.read_text() for path in folder.glob("told-*")]


@pytest.mark.parametrize("signals", [1, 3])
def test_workers_are_told_once_that_their_job_is_cancelled(tmp_path, signals):
    """A second signal would end them without saving."""
    assert told(tmp_path, signals, first=False) == (75, ["told ", "told "])


def test_a_job_that_is_cancelled_before_it_has_workers_starts_none(tmp_path):
    assert told(tmp_path, 2, first=True) == (75, [])


def test_a_stopped_job_is_taken_from_the_queue_or_told_and_a_second_stop_cancels_it(tmp_path, monkeypatch, caplog):
    said = tmp_path / "said"
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    worker = SlurmWorker(SimpleNamespace(job_id="7_3"))
    worker.stop(now=False)
    assert said.read_text().splitlines() == ["--state=PENDING 7_3", "--signal=TERM 7_3"]
    worker.stop(now=True)
    assert said.read_text().splitlines()[2:] == ["7_3"]
    (tmp_path / "scancel").write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
    worker.stop(now=True)
    assert "scancel 7_3: no controller" in caplog.text


def test_a_job_is_queued_again_unless_nothing_is_saved_too_often(tmp_path):
    """The batch script itself, with what it calls replaced but for the decision."""
    study, place = tmp_path / "s", tmp_path / "bin"
    place.mkdir()
    for name, text in {
        "srun": f"#!/bin/sh\n. {tmp_path}/saves; exit 75\n",
        "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/queued\n',
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    launcher = choose(LAUNCHERS, {"type": "slurm", "dry_run": True, "retries": 0}, "launcher").create()
    script = launcher.scripts(Task(study, ("train",), 1, 1, study / "work" / "logs"))["train"]
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
    queued = []
    for saves in ("", f"mkdir -p {study}/a/checkpoints/step-00000001", ""):
        (tmp_path / "saves").write_text(saves)
        before = count(tmp_path / "queued")
        done = subprocess.run(
            ["bash", "-c", script], env=environment, cwd=os.getcwd(), capture_output=True, text=True
        )
        assert done.returncode == 75
        queued.append(count(tmp_path / "queued") - before)
    assert queued == [1, 1, 0]
    assert "job 12: stopped 1 time in a row with nothing saved since" in done.stderr


@pytest.mark.parametrize("executor", ["slurm", "local"])
def test_without_slurm_a_line_names_what_does_without_it(tmp_path, monkeypatch, executor):
    monkeypatch.setenv("PATH", str(tmp_path))
    own = choose(LAUNCHERS, {"type": "slurm", "executor": executor}, "launcher").create()
    choose(LAUNCHERS, {"type": "slurm", "dry_run": True}, "launcher").create().check()
    if executor == "local":
        own.check()
        return
    with pytest.raises(ConfigError, match=r"no sbatch or srun here; .*dry_run=true.*executor=local"):
        own.check()
    with pytest.raises(ConfigError, match="no sbatch or srun"):
        own.start(task(tmp_path), [0])


def test_a_job_that_sbatch_does_not_take_is_one_line_with_its_reason(tmp_path, monkeypatch):
    for name, text in {
        "sbatch": "echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1",
        "srun": "",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    own = choose(LAUNCHERS, {"type": "slurm", "partition": "gpus"}, "launcher").create()
    with pytest.raises(ConfigError, match=r"sbatch did not take the job \(sbatch: error: invalid partition"):
        own.start(task(tmp_path), [0])


def count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def launcher():
    return choose(LAUNCHERS, {"type": "slurm", "executor": "local", "gpus_per_job": 0}, "launcher").create()


def until(happens, seconds=60.0):
    end = time.monotonic() + seconds
    while not happens() and time.monotonic() < end:
        time.sleep(0.05)
    assert happens()


def ended(worker) -> int:
    until(lambda: worker.exit_code() is not None)
    return worker.exit_code()


def task(tmp_path: Path) -> Little:
    return Little(tmp_path, ("train",), 1, 1, tmp_path / "logs")


@pytest.mark.slow
def test_a_job_that_is_told_of_its_end_saves_and_goes_on_as_the_same_job(tmp_path, launcher):
    (worker,) = launcher.start(task(tmp_path), [0])
    until(lambda: (tmp_path / "began").exists() and (tmp_path / "began").read_text())
    controller = worker.job._process.pid
    (job,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(job), signal.SIGUSR2)  # as SLURM, before the limit
    assert ended(worker) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.slow
@pytest.mark.parametrize("now", [False, True])
def test_a_job_that_is_stopped_saves_and_ends_or_ends_at_once(tmp_path, launcher, now):
    (worker,) = launcher.start(task(tmp_path), [0])
    until(lambda: (tmp_path / "began").exists() and (tmp_path / "began").read_text())
    worker.stop(now)
    assert ended(worker) == (1 if now else 75)
    assert (tmp_path / "saved").exists() != now
    assert not Path(f"/proc/{(tmp_path / 'began').read_text()}/cmdline").exists()


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 4, 75])
def test_a_job_ends_as_its_worker_does(tmp_path, launcher, code):
    (tmp_path / "short").write_text(str(code))
    (worker,) = launcher.start(task(tmp_path), [0])
    assert ended(worker) == code


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_ctrl_c_stops_the_job(tmp_path, launcher):
    killed = []

    def sleep(seconds):
        time.sleep(0.05)
        began = tmp_path / "began"
        pid = int(began.read_text() or 0) if began.exists() else 0
        if pid and not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        elif pid and pid not in killed:
            killed.append(pid)
            os.kill(os.getpid(), signal.SIGINT)

    deaths = []
    watch = Watch(
        launcher, task(tmp_path), lambda place: not (tmp_path / "done").exists(), lambda: 0.0, sleep=sleep,
        died=lambda code, line: deaths.append(code),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        watch.run()
    assert deaths == [-9]
    assert len(killed) == 2
    until(lambda: (tmp_path / "saved").exists())
