"""Trackers: every implementation has the whole contract, several act as one, and metrics.csv survives
interruptions."""

import inspect
import os
from pathlib import Path

import pytest

from lcprobe.config import TrackConfig
from lcprobe.studies.trackers import CsvTracker, Trackers, WandbTracker, read_metrics, wandb_mode
from lcprobe.tracking import NoTracker, Tracker

CALLS = {
    "metrics": ({"tokens": 1, "loss": 0.5},),
    "table": ("cells", [{"n": 1}]),
    "figure": ("curve", Path("curve.png")),
    "summary": ({"seconds": 2.0},),
    "artifact": ("records", "records", [Path("a.parquet")]),
    "finish": (),
}
"""Every method of the contract, with arguments."""


class Log(Tracker):
    """Keeps every call."""

    def __init__(self):
        self.calls = []

    def metrics(self, values):
        self.calls.append(("metrics", values))

    def table(self, name, rows):
        self.calls.append(("table", name, rows))

    def figure(self, name, png):
        self.calls.append(("figure", name, png))

    def summary(self, values):
        self.calls.append(("summary", values))

    def artifact(self, name, kind, paths):
        self.calls.append(("artifact", name, kind, paths))

    def finish(self):
        self.calls.append(("finish",))


def test_the_contract_has_these_methods_and_no_others():
    assert set(CALLS) == Tracker.__abstractmethods__


@pytest.mark.parametrize("cls", [NoTracker, CsvTracker, WandbTracker, Trackers])
def test_every_tracker_has_the_whole_contract_with_its_signatures(cls):
    for name in CALLS:
        assert inspect.signature(getattr(cls, name)) == inspect.signature(getattr(Tracker, name)), name
    public = {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
    assert public == set(CALLS), "what only one tracker can do needs a second handle to it"


@pytest.mark.parametrize("name", CALLS)
def test_several_trackers_act_as_one(name):
    first, second = Log(), Log()
    getattr(Trackers([first, second]), name)(*CALLS[name])
    assert first.calls == second.calls == [(name, *CALLS[name])]


def test_a_tracker_without_wandb_takes_every_call(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "init", lambda **settings: (_ for _ in ()).throw(OSError("no space")))
    config = TrackConfig(wandb="offline")
    broken = WandbTracker(config, tmp_path, name="run", group="study", job_type="train", tags=[], facts={})
    for name, arguments in CALLS.items():
        for tracker in (broken, NoTracker(), CsvTracker(tmp_path / "metrics.csv", 0)):
            assert getattr(tracker, name)(*arguments) is None


def test_wandb_has_a_home_where_none_is_set(tmp_path, monkeypatch):
    """Without one its server logs to the terminal."""
    import wandb

    homes = []
    monkeypatch.setattr(wandb, "init", lambda **settings: homes.append(os.environ.get("HOME")) or 1 / 0)
    for listed in (True, False):
        monkeypatch.delenv("HOME", raising=False)
        if not listed:
            monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        WandbTracker(
            TrackConfig(wandb="offline"), tmp_path, name="run", group="s", job_type="train", tags=[], facts={}
        )
    assert all(Path(home).is_dir() for home in homes)
    assert len(homes) == 2


def test_csv_metrics_survive_new_columns_and_a_torn_line(tmp_path):
    tracker = CsvTracker(tmp_path / "m.csv", 0)
    tracker.metrics({"tokens": 1, "a": 0.5})
    tracker.metrics({"tokens": 2, "b": 1.5})
    tracker.metrics({"tokens": 3, "a": 2.5})
    with open(tmp_path / "m.csv", "a") as file:
        file.write("4,0.")
    assert read_metrics(tmp_path / "m.csv")[:3] == [
        {"tokens": 1, "a": 0.5},
        {"tokens": 2, "b": 1.5},
        {"tokens": 3, "a": 2.5},
    ]
    again = CsvTracker(tmp_path / "m.csv", 2)
    again.metrics({"tokens": 3, "a": 9.0})
    assert [r["tokens"] for r in read_metrics(tmp_path / "m.csv")] == [1, 2, 3]


class FakeRun:
    """A W&B run as the server has it: what is logged stays over resumes."""

    def __init__(self, server, settings):
        self.settings, self._server = settings, server
        self.resumed = settings["mode"] == "online" and bool(server) and settings["resume"] == "allow"
        self.summary = dict(server[-1]) if self.resumed else {}

    def log(self, values):
        self._server.append(values)

    def define_metric(self, *names, **more):
        pass

    def finish(self):
        pass


@pytest.mark.parametrize(("mode", "logged"), [("online", [1, 2, 3, 4]), ("offline", [1, 2, 3, 1, 2, 3, 4])])
def test_a_resumed_run_is_one_run_and_has_every_row_once(tmp_path, monkeypatch, mode, logged):
    """Interrupted after row 3, resumed from a checkpoint at row 2: row 3 is measured again."""
    import wandb

    server, runs = [], []
    monkeypatch.setattr(wandb, "init", lambda **settings: runs.append(FakeRun(server, settings)) or runs[-1])
    monkeypatch.delenv("WANDB_MODE", raising=False)
    given = {"name": "run", "group": "study", "job_type": "train", "tags": [], "facts": {}}
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        table = CsvTracker(tmp_path / "metrics.csv", start)
        online = WandbTracker(TrackConfig(wandb=mode), tmp_path, **given, rows=table.rows)
        for tokens in steps:
            for tracker in (table, online):
                tracker.metrics({"tokens": tokens, "train/loss": 0.5})
    assert [row["tokens"] for row in server] == logged
    assert runs[0].settings["id"] == runs[1].settings["id"]
    probe = WandbTracker(TrackConfig(wandb=mode), tmp_path, **{**given, "job_type": "probe"})
    probe.metrics({"probe/length": 64, "probe/x": 1.0})
    assert server[-1] == {"probe/length": 64, "probe/x": 1.0}
    assert runs[2].settings["id"] != runs[0].settings["id"]
    assert runs[2].settings["resume"] is None, "the results of an earlier evaluation are replaced"


@pytest.mark.parametrize(
    ("wanted", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "x" * 40}, "online"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "disabled"}, "off"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "off"}, "off"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "nonsense"}, "off"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "dryrun"}, "offline"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "shared"}, "online"),
        ("auto", {"WANDB_MODE": "online"}, "offline"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_DISABLED": "true"}, "off"),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_DISABLED": "false"}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "off"),
        ("offline", {"WANDB_MODE": "online"}, "offline"),
        ("off", {"WANDB_MODE": "online"}, "off"),
    ],
)
def test_the_environment_is_never_exceeded(monkeypatch, tmp_path, wanted, environment, mode):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode(TrackConfig(wandb=wanted)) == mode
