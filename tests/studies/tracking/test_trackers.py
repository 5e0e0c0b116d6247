"""Trackers: every implementation has the whole contract, several act as one, and metrics.csv survives
interruptions."""

import inspect
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from lcprobe.config import TrackConfig
from lcprobe.errors import ConfigError, NumericsError, StoppedEarly, Terminated
from lcprobe.studies.tracking import CsvTracker, Trackers, WandbRun, WandbTracker, final_loss, read_metrics
from lcprobe.studies.tracking.also.tensorboard import TensorBoardTracker
from lcprobe.studies.tracking.also.trackio import TrackioTracker
from lcprobe.studies.tracking.wandb_tracker import exit_code_of
from lcprobe.tracking import Artifact, NoTracker, Tracker

CALLS = {
    "metrics": ({"tokens": 1, "loss": 0.5},),
    "table": ("cells", [{"n": 1}]),
    "figure": ("curve", Path("curve.png")),
    "page": ("report", Path("report.html")),
    "summary": ({"seconds": 2.0},),
    "artifact": (Artifact("records", "records", files={"a.parquet": Path("a.parquet")}),),
    "uses": (Artifact("data", "dataset", "5eed"),),
    "alert": ("stopped", "not finite"),
    "finish": (None,),
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

    def artifact(self, artifact):
        self.calls.append(("artifact", artifact))

    def uses(self, artifact):
        self.calls.append(("uses", artifact))

    def alert(self, title, text):
        self.calls.append(("alert", title, text))

    def page(self, name, html):
        self.calls.append(("page", name, html))

    def finish(self, error=None):
        self.calls.append(("finish", error))


def a_run(folder: Path, job_type="train", run="run") -> WandbRun:
    return WandbRun(str(folder), run, f"study/{run}", "study", job_type)


def test_the_contract_has_these_methods_and_no_others():
    assert set(CALLS) == Tracker.__abstractmethods__


@pytest.mark.parametrize("cls", [NoTracker, CsvTracker, WandbTracker, TensorBoardTracker, TrackioTracker, Trackers])
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
    broken = WandbTracker(TrackConfig(wandb="offline"), a_run(tmp_path), tmp_path)
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
        WandbTracker(TrackConfig(wandb="offline"), a_run(tmp_path), tmp_path)
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


def test_rows_that_are_measured_again_replace_those_of_before(tmp_path):
    tracker = CsvTracker(tmp_path / "m.csv", 0)
    for tokens, loss in ((1, 0.5), (2, 0.5), (2, 0.1), (3, 9.0), (2, 0.4), (3, 0.3)):
        tracker.metrics({"tokens": tokens, "loss": loss})
    assert read_metrics(tmp_path / "m.csv") == tracker.rows
    assert [(row["tokens"], row["loss"]) for row in tracker.rows] == [(1, 0.5), (2, 0.4), (3, 0.3)]


class FakeRun:
    """A W&B run as the server has it: what is logged stays over resumes, and is replaced without."""

    def __init__(self, server, settings):
        self.settings, self._server = settings, server
        self.resumed = settings["mode"] == "online" and bool(server) and settings["resume"] == "allow"
        self.summary = server[-1]["summary"] if self.resumed else {}
        if not self.resumed:
            server.append({"rows": [], "summary": self.summary})
        self.preempting, self.exit_code = False, None
        self.said, self.artifacts, self.alerts = {}, [], []
        self.config = SimpleNamespace(update=lambda values, allow_val_change: self.said.update(values))

    def log_artifact(self, artifact):
        self.artifacts.append(("made", artifact))

    def _log_artifact(self, artifact, is_user_created, use_after_commit):
        assert is_user_created
        assert use_after_commit
        self.artifacts.append(("used", artifact))

    def alert(self, title, text):
        self.alerts.append((title, text))

    def log(self, values):
        self._server[-1]["rows"].append(values)
        self.summary.update(values)

    def define_metric(self, *names, **more):
        pass

    def mark_preempting(self):
        self.preempting = True

    def finish(self, exit_code=None):
        self.exit_code = exit_code


@pytest.fixture
def wandb_runs(monkeypatch):
    """Fake runs in the order in which they are opened, and what the server has."""
    import wandb

    runs, server = [], []
    monkeypatch.setattr(wandb, "init", lambda **settings: runs.append(FakeRun(server, settings)) or runs[-1])
    monkeypatch.setattr("lcprobe.studies.tracking.modes.unreachable", lambda address: "")
    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    return runs, server


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_resumed_run_is_one_run_and_has_every_row_once(tmp_path, wandb_runs, mode):
    """Interrupted after row 3, resumed from a checkpoint at row 2: row 3 is measured again. Offline the last folder has
    every row."""
    runs, server = wandb_runs
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        table = CsvTracker(tmp_path / "metrics.csv", start)
        run = a_run(tmp_path)
        tracker = WandbTracker(TrackConfig(wandb=mode), run, tmp_path, goes_on=start > 0, rows=table.rows)
        for tokens in steps:
            for one in (table, tracker):
                one.metrics({"tokens": tokens, "train/loss": 0.5})
    assert [row["tokens"] for row in server[-1]["rows"]] == [1, 2, 3, 4]
    assert len(server) == (1 if mode == "online" else 2)
    assert runs[0].settings["id"] == runs[1].settings["id"]
    assert runs[0].settings["resume"] is None, "a run that starts anew replaces what was there"


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_training_that_goes_back_logs_no_tokens_twice_and_misses_none(tmp_path, wandb_runs, mode):
    """Rows cannot be taken back: those that are measured again are left out."""
    tracker = WandbTracker(TrackConfig(wandb=mode), a_run(tmp_path), tmp_path)
    for tokens in (1, 2, 3, 2, 3, 4, 3, 4, 5):
        tracker.metrics({"tokens": tokens, "train/loss": 0.5})
        tracker.metrics({"tokens": tokens, "probe/x": 0.5})
    rows = wandb_runs[1][-1]["rows"]
    for name in ("train/loss", "probe/x"):
        assert [row["tokens"] for row in rows if name in row] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("how", ["none", "references", "files"])
def test_artifacts_have_versions_by_content_wherever_it_is(tmp_path, wandb_runs, how, monkeypatch, capsys):
    monkeypatch.setattr("wandb.errors.term._silent", False)  # as in a run
    monkeypatch.setattr("wandb.errors.term._show_warnings", True)
    config = TrackConfig(wandb="offline", artifacts=how)
    tracker = WandbTracker(config, a_run(tmp_path), tmp_path)
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model").write_bytes(content)
        tracker.artifact(Artifact("run=1", "checkpoint", "5eed", {"model": tmp_path / folder / "model"}))
    tracker.uses(Artifact("data", "dataset", "ab" * 32, facts={"place": str(tmp_path)}))
    run = wandb_runs[0][0]
    assert run.said == {"uses": [f"data:{'ab' * 8}"]}, "lineage is in the config whatever else is sent"
    if how == "none":
        assert run.artifacts == []
        return
    made = [artifact for kind, artifact in run.artifacts if kind == "made"]
    assert [one.name.partition(":")[0] for one in made] == ["run-1"] * 3
    assert made[0].digest == made[1].digest != made[2].digest
    entries = [one.manifest.entries["model"] for one in made]
    assert all(str(tmp_path) in (entry.ref or entry.local_path) for entry in entries), "nothing is copied"
    assert [entry.ref is None for entry in entries] == [how == "files"] * 3
    assert "cannot be checksummed" not in capsys.readouterr().err
    (used,) = [artifact for kind, artifact in run.artifacts if kind == "used"]
    assert list(used.manifest.entries) == ["dataset"]


def test_alerts_and_system_metrics_are_as_chosen(tmp_path, wandb_runs):
    for wanted in (True, False):
        config = TrackConfig(wandb="offline", alerts=wanted, system_metrics=wanted)
        WandbTracker(config, a_run(tmp_path), tmp_path).alert("stopped", "why")
        run = wandb_runs[0][-1]
        assert run.alerts == ([("stopped", "why")] if wanted else [])
        assert run.settings["settings"].x_disable_stats is not wanted


def test_the_rows_of_an_evaluation_are_logged_once(tmp_path, wandb_runs):
    runs, server = wandb_runs
    for accuracy in (0.5, 0.5, 0.75):
        tracker = WandbTracker(TrackConfig(wandb="online"), a_run(tmp_path), tmp_path, goes_on=True)
        tracker.metrics({"eval/length": 64, "eval/multikey/accuracy": accuracy, "eval/multikey/low": 0.1})
        tracker.summary({"eval/multikey@64": accuracy})
        tracker.finish()
    assert [row["eval/multikey/accuracy"] for row in server[-1]["rows"]] == [0.5, 0.75]
    assert len({run.settings["id"] for run in runs}) == 1


@pytest.mark.parametrize(
    ("error", "code", "preempting"),
    [
        (None, 0, False),
        (StoppedEarly("at step 3"), 75, True),
        (Terminated("SIGTERM"), 75, True),
        (KeyboardInterrupt(), 255, False),
        (NumericsError("not finite"), 4, False),
        (ConfigError("a", 1, "2"), 2, False),
        (RuntimeError("a defect"), 1, False),
    ],
)
def test_an_interrupted_run_is_not_finished(tmp_path, wandb_runs, error, code, preempting):
    runs, _ = wandb_runs
    WandbTracker(TrackConfig(wandb="online"), a_run(tmp_path), tmp_path).finish(error)
    assert (runs[0].exit_code, runs[0].preempting) == (code, preempting)
    assert exit_code_of(error) == code


def test_the_run_of_a_sweeps_agent_is_the_run(tmp_path, wandb_runs):
    run = WandbRun(str(tmp_path), "run", "study/run", "study", "train", agent_id="q1w2e3r4")
    WandbTracker(TrackConfig(wandb="online"), run, tmp_path)
    settings = wandb_runs[0][0].settings
    assert settings["id"] == "q1w2e3r4"
    assert settings["project"] is settings["name"] is None, "the agent has said which"


def test_the_final_loss_is_that_of_the_last_tenth():
    rows = [
        {"tokens": t, "train/loss": 9.0, "train/text_loss": 9.0, "train/answer_loss": float(t)} for t in range(20)
    ]
    assert final_loss([*rows, {"tokens": 19, "probe/x": 1.0}]) == 18.5
    del rows[-1]["train/answer_loss"]
    assert final_loss(rows) == 9.0
    assert final_loss([]) != final_loss([])


def test_metrics_that_go_on_are_written_as_they_were(tmp_path):
    path = tmp_path / "m.csv"
    tracker = CsvTracker(path, 0)
    tracker.metrics({"tokens": 1024, "step": 1, "train/loss": 2.0, "train/lr": 1e-05})
    tracker.metrics({"tokens": 2048, "step": 2, "train/loss": float("nan"), "train/lr": 3e-05})
    before = path.read_bytes()
    CsvTracker(path, 2048)
    assert path.read_bytes() == before
