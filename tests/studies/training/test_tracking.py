"""What a training run tracks when it goes on, and when it begins anew."""

from lcprobe.config import load
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.status import read_status
from lcprobe.studies.tracking import CsvTracker
from lcprobe.studies.tracking.kept_evaluations import KEPT, Evaluation, keep
from lcprobe.studies.training import tracking, train_run
from lcprobe.tracking import NoTracker
from tests.tiny import TINY, write_config


def test_a_run_that_goes_on_keeps_its_results_and_one_that_begins_anew_has_none(tmp_path, prepared, monkeypatch):
    opened = []

    class Opened(NoTracker):
        def __init__(self, config, run, folder, *, goes_on=False, rows=()):
            self.goes_on, self.rows, self.values = goes_on, list(rows), {}
            opened.append(self)

        def summary(self, values):
            self.values |= values

    monkeypatch.setattr(tracking, "open_run", Opened)
    monkeypatch.setattr(tracking, "is_tracked", lambda track, study: True)
    run = make_plan({**TINY, "study": {"name": "tiny", "folder": str(tmp_path)}}).runs[0]
    trained, curve = {"tokens": 256, "train/loss": 1.0}, {"eval/length": 64, "eval/a/accuracy": 0.5}
    CsvTracker(tmp_path / "metrics.csv", 0).metrics(trained)
    keep(tmp_path / KEPT, Evaluation("one", {"eval/a@64": 0.5}, [curve]))
    for tokens in (256, 0):
        tracking.run_tracker(run, tmp_path, prepared, tokens, "train")
    assert [one.goes_on for one in opened] == [True, False]
    assert opened[0].rows == [trained, curve]
    assert [one.values for one in opened] == [{"eval/a@64": 0.5}, {}]
    assert opened[1].rows == []
    assert not (tmp_path / KEPT).exists()


def test_a_run_is_done_when_its_tracker_is_closed_and_not_before(tmp_path, data_settings, monkeypatch):
    """A kill in between would leave the tracker without its last rows for ever: what is done is not opened again."""
    closed = []

    class Closing(NoTracker):
        def summary(self, values):
            self.values = values

        def finish(self, error=None):
            closed.append((self.values["data_digest"], read_status(run.folder)["status"]))

    config = write_config(tmp_path, data_settings, train={"tokens": 256 * 2}, probe={"while_training": None})
    run = make_plan(load([str(config)], [])).runs[0]
    monkeypatch.setattr(train_run, "run_tracker", lambda *given: Closing())
    status = train_run.train_run(run)
    assert closed == [(status["data_digest"], "training")]
    assert read_status(run.folder)["status"] == "done"
