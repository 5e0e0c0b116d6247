"""Tasks of a Ray cluster of this machine, with a worker that does little: a killed one is replaced, and all end when the
launcher is told to."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.studies.launchers.contract import Task
from lcprobe.studies.launchers.watching.watch import Watch

WORKER = """
import os, pathlib, signal, sys, time
folder, own = pathlib.Path(sys.argv[1]), str(os.getpid())
def save(*_):
    (folder / "saved" / own).touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / "began" / own).touch()
time.sleep(120)
"""


@dataclass(frozen=True)
class Little(Task):
    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", WORKER, str(self.folder)]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_all_end_when_told_to(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), f"{os.getcwd()}/kernels"]))
    began, saved, deaths, killed = tmp_path / "began", tmp_path / "saved", [], []
    began.mkdir()
    saved.mkdir()
    launcher = choose(LAUNCHERS, {"type": "ray", "workers": 2, "num_cpus": 0.5}, "launcher").create()

    def sleep(seconds):
        time.sleep(0.1)
        pids = sorted(int(path.name) for path in began.iterdir())
        if len(pids) == 2 and not killed:
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)
        elif len(pids) == 3 and killed[-1] > 0:
            killed.append(0)
            os.kill(os.getpid(), signal.SIGTERM)

    watch = Watch(
        launcher, Little(tmp_path, ("train",), 4, 1, tmp_path / "logs"), lambda place: True, lambda: 0.0, sleep=sleep,
        died=lambda code, line: deaths.append(code),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        watch.run()
    assert deaths == [-9]
    assert {path.name for path in saved.iterdir()} == {path.name for path in began.iterdir()} - {str(killed[0])}


def test_without_ray_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"lcprobe\[ray\]"), choose(LAUNCHERS, "ray", "launcher").create():
        pass


@pytest.mark.parametrize("address", [None, "auto", "ray://nowhere:10001"])
def test_a_cluster_that_is_not_reached_is_one_line(monkeypatch, address):
    """Ray's own advice is of a flag that its command line has."""

    def init(**given):
        raise ConnectionError("Could not find any running Ray instance. Specify one by setting the `--address` flag")

    monkeypatch.setitem(sys.modules, "grpc", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    given = {"type": "ray"} if address is None else {"type": "ray", "address": address}
    with pytest.raises(ConfigError) as error, choose(LAUNCHERS, given, "launcher").create():
        pass
    assert error.value.exit_code == 2
    if address is not None:
        assert f"reached at {address}" in str(error.value)
        assert "--address" not in str(error.value)
        with pytest.raises(ConfigError, match=f"reached at {address}"):  # before anything is written
            choose(LAUNCHERS, given, "launcher").create().check()


def test_a_check_leaves_the_handler_of_signals_as_it_was(monkeypatch):
    own, begun = signal.getsignal(signal.SIGTERM), []

    def init(**given):
        begun.append(given["address"])
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    fake = SimpleNamespace(is_initialized=lambda: bool(begun), init=init, shutdown=begun.clear)
    monkeypatch.setitem(sys.modules, "ray", fake)
    launcher = choose(LAUNCHERS, {"type": "ray", "address": "auto"}, "launcher").create()
    launcher.check()
    assert signal.getsignal(signal.SIGTERM) is own
    with launcher:
        assert begun == ["auto"], "once"
    assert not begun


def test_without_the_client_it_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ConfigError, match=r"ray://head:10001.*lcprobe\[ray\]"):
        choose(LAUNCHERS, {"type": "ray", "address": "ray://head:10001"}, "launcher").create().check()
    choose(LAUNCHERS, {"type": "ray", "address": "head:6379"}, "launcher").create().check()
