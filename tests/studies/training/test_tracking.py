"""What a training run tracks when it goes on, and when it begins anew."""

from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.tracking import CsvTracker
from lcprobe.studies.tracking.kept_evaluations import KEPT, Evaluation, keep
from lcprobe.studies.training import tracking
from lcprobe.tracking import NoTracker
from tests.tiny import TINY


def test_a_run_that_goes_on_keeps_its_results_and_one_that_begins_anew_has_none(tmp_path, prepared, monkeypatch):
    opened = []

    class Opened(NoTracker):
        def __init__(self, config, run, folder, *, goes_on=False, rows=()):
            self.goes_on, self.rows, self.values = goes_on, list(rows), {}
            opened.append(self)

        def summary(self, values):
            self.values |= values

    monkeypatch.setattr(tracking, "WandbTracker", Opened)
    monkeypatch.setattr(tracking, "wandb_mode", lambda track, study: "offline")
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
