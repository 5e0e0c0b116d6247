"""A run that a worker trains as several processes: what its end means, whatever an earlier attempt has left behind."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from lcprobe.errors import ConfigError, NumericsError, PeerError, StoppedEarly, exit_code_of
from lcprobe.locks import children_of, end_tree
from lcprobe.studies.launchers.work import training, trial
from lcprobe.studies.launchers.work.orders import TrainOrder
from lcprobe.studies.launchers.work.training import trial_units
from lcprobe.studies.status import write_status
from tests.tiny import write_config


@dataclass
class Run:
    """In place of a unit of training."""

    folder: Path
    job_type: str = "train"
    steps: int = 0

    @property
    def run_(self):
        return SimpleNamespace(config=SimpleNamespace(train=SimpleNamespace(devices=2)))

    def is_done(self) -> bool:
        return False

    def progress(self) -> int:
        return self.steps


def test_a_trial_on_several_devices_is_named_by_its_study(tmp_path, monkeypatch, data_settings):
    """Each of its processes finds it there."""
    trained = []
    monkeypatch.setattr(
        trial, "train_run", lambda run, folder, job_type: trained.append((run.name, folder, job_type))
    )
    sweep, train = {"lrs": [0.003, 0.01]}, {"devices": 2, "strategy": "ddp"}
    config = write_config(tmp_path, data_settings, study={"folder": str(tmp_path), "lr_sweep": sweep}, train=train)
    study = tmp_path / "tiny"
    study.mkdir()
    config.rename(study / "study.yaml")
    units = trial_units(*training.plans_of(study, TrainOrder()))
    assert len(units) == 4
    for unit in units:
        assert training.own_words(unit) == ("-m", trial.__name__, str(study), unit.name)
        trial.train_trial(study, unit.name)
    assert trained == [(unit.name, study / "sweep" / unit.name, "sweep") for unit in units]
    with pytest.raises(ConfigError, match=r"trial: given 'hybrid'; allowed: .*hybrid-lr=0.01-s0"):
        trial.train_trial(study, "hybrid")


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """The error that a run ends with."""

    def ended(attempt) -> BaseException:
        unit = Run(tmp_path)

        def start(command, stdin):
            return SimpleNamespace(wait=lambda: attempt(unit))

        monkeypatch.setattr(training, "write_run_config", lambda unit: tmp_path / "run.yaml")
        monkeypatch.setattr(training.subprocess, "Popen", start)
        with pytest.raises(Exception) as caught:
            training._run_on_devices(unit)
        return caught.value

    return ended


@pytest.mark.parametrize("code", [75, 4, 2])
def test_the_status_of_an_earlier_attempt_says_nothing_of_this_one(tmp_path, ended, code):
    write_status(tmp_path, {"status": "stopped", "why": "earlier", "exit_code": code})
    error = ended(lambda unit: 1)
    assert exit_code_of(error) == 74
    assert "torchrun ended with 1" in str(error)


def stopped(code: int, steps: int):
    def attempt(unit) -> int:
        write_status(unit.folder, {"status": "stopped", "why": "this one", "exit_code": code})
        unit.steps += steps
        return 1

    return attempt


@pytest.mark.parametrize(
    ("code", "steps", "kind"),
    [(75, 3, StoppedEarly), (75, 0, PeerError), (4, 0, NumericsError), (1, 0, RuntimeError), (74, 0, OSError)],
)
def test_its_own_status_is_what_it_ended_with(tmp_path, ended, code, steps, kind):
    write_status(tmp_path, {"status": "stopped", "why": "earlier", "exit_code": 2})
    error = ended(stopped(code, steps))
    assert type(error) is kind
    assert str(error) == "this one"


CHILD = """
import pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def note(*_):
    with open(path, "a") as file:
        file.write("told ")
signal.signal(signal.SIGTERM, note)
path.touch()
while not path.read_text():
    time.sleep(0.02)
time.sleep(0.3)
"""
PARENT = """
import signal, subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", *sys.argv[1:2], path], start_new_session=True) for path in sys.argv[2:]]
signal.signal(signal.SIGTERM, lambda *_: [child.kill() for child in children])
for child in children:
    child.wait()
"""


def test_processes_of_a_run_are_told_once_and_torchrun_is_not(tmp_path):
    """Torchrun would kill them half a minute later."""
    paths = [tmp_path / name for name in "ab"]
    torchrun = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, *map(str, paths)])
    until(lambda: all(path.exists() for path in paths))
    training._tell_ranks(torchrun)
    assert torchrun.wait(30) == 0
    assert [path.read_text() for path in paths] == ["told ", "told "]


def test_all_of_a_tree_of_processes_is_ended(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, *map(str, paths)])
    until(lambda: all(path.exists() for path in paths))
    children = children_of(parent.pid)
    assert len(children) == 2
    end_tree(parent.pid)
    assert parent.wait(30) == -9
    until(lambda: not any(is_running(child) for child in children))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(happens, seconds=30.0):
    end = time.monotonic() + seconds
    while not happens() and time.monotonic() < end:
        time.sleep(0.02)
    assert happens()


def test_torch_knows_the_time_that_the_guide_sets(monkeypatch):
    torchrun = pytest.importorskip("torch.distributed.launcher.api")
    names = {one.name for one in torchrun.LaunchConfig.__dataclass_fields__.values()}
    if "shutdown_timeout" not in names:
        pytest.skip("torch 2.11")
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    assert torchrun.LaunchConfig(1, 1, 1).shutdown_timeout == 600
