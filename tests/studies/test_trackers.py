"""Trackers: every implementation has the whole contract, several act as one, and metrics.csv survives
interruptions."""

import inspect
from pathlib import Path

import pytest

from lcprobe.config import TrackConfig
from lcprobe.studies.trackers import CsvTracker, Trackers, WandbTracker, read_metrics
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
