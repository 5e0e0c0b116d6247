"""TensorBoard and trackio, read back: every row once and none missing, over kills and rewinds."""

import pytest

from lcprobe.config import TrackConfig
from lcprobe.errors import ConfigError
from lcprobe.studies.tracking import CsvTracker, WandbRun
from lcprobe.studies.tracking.also.tensorboard import TensorBoardTracker
from lcprobe.studies.tracking.also.trackio import TrackioTracker
from lcprobe.studies.tracking.chosen import require_trackers
from tests.studies.tracking.also.read_back import tensorboard_rows, trackio_rows

CURVE = {"eval/length": 64, "eval/multikey/accuracy": 0.5}


@pytest.fixture(params=["tensorboard", "trackio"])
def tracker(request, tmp_path, monkeypatch):
    """Functions that open a tracker on a run, and that read it back."""
    pytest.importorskip(request.param, reason=f"pip install 'lcprobe[{request.param}]'")
    if request.param == "tensorboard":
        return lambda run, rows: TensorBoardTracker(run, rows), tensorboard_rows
    import trackio.sqlite_storage
    import trackio.utils

    database = tmp_path / "trackio"
    for module in (trackio, trackio.sqlite_storage, trackio.utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", database)
    config = TrackConfig(system_metrics=False)
    return lambda run, rows: TrackioTracker(config, run, rows), lambda run: trackio_rows(run, database)


def a_run(folder, run="mamba2"):
    return WandbRun(str(folder), run, f"study/{run}", "study", "train", config={"axis/arch": run})


def test_every_row_is_there_once_over_a_kill_a_rewind_and_an_evaluation(tmp_path, tracker):
    opened, read = tracker
    run, other = a_run(tmp_path), a_run(tmp_path, "hybrid")
    beside = opened(other, [])
    beside.metrics({"tokens": 1, "step": 1, "train/loss": 7.0})
    beside.finish()
    table = CsvTracker(tmp_path / "metrics.csv", 0)
    first = opened(run, table.rows)
    for tokens, loss in ((1, 0.5), (2, 0.25), (3, 9.0), (4, 9.0), (3, 0.125)):  # a rewind to step 2
        for one in (table, first):
            one.metrics({"tokens": tokens, "step": tokens, "train/loss": loss})
            one.metrics({"tokens": tokens, "probe/x": 1.0})
    first.finish(KeyboardInterrupt())
    table = CsvTracker(tmp_path / "metrics.csv", 2)  # goes on from a checkpoint after step 2
    second = opened(run, [*table.rows, CURVE])
    for tokens, loss in ((3, 0.125), (4, 0.0625)):
        for one in (table, second):
            one.metrics({"tokens": tokens, "step": tokens, "train/loss": loss})
            one.metrics({"tokens": tokens, "probe/x": 1.0})
    second.summary({"train/final_loss": 0.0625, "eval/multikey@64": 0.5})
    second.finish()
    found = read(run)
    assert found["train/loss"] == [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]
    assert found["probe/x"] == [(tokens, 1.0) for tokens in (1, 2, 3, 4)]
    assert found["eval/multikey/accuracy"] == [(64, 0.5)]
    assert [value for _, value in found["train/final_loss"]] == [0.0625]
    assert [value for _, value in found["eval/multikey@64"]] == [0.5]
    assert read(other)["train/loss"] == [(1, 7.0)]


def test_figures_tables_pages_and_alerts_are_taken(tmp_path, tracker, caplog):
    from PIL import Image

    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    opened = tracker[0](a_run(tmp_path), [])
    opened.figure("report/a", tmp_path / "a.png")
    opened.table("report/cells", [{"model": "mamba2", "n": 3, "which": ("a", "b")}])
    opened.page("report/page", tmp_path / "report.html")
    opened.alert("stopped", "not finite")
    opened.finish()
    assert not [record for record in caplog.records if "off from now on" in record.getMessage()]


def test_a_library_that_fails_ends_tracking_and_not_the_run(tmp_path, caplog):
    (tmp_path / "tensorboard").write_text("a file where the folder would be")
    broken = TensorBoardTracker(a_run(tmp_path), [{"tokens": 1, "train/loss": 0.5}])
    broken.metrics({"tokens": 2, "train/loss": 0.5})
    broken.finish()
    assert [record.getMessage()[:30] for record in caplog.records] == ["TensorBoard is off from now on"]


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_trackers(TrackConfig())
    with pytest.raises(ConfigError, match=r"track.also: trackio is not installed; .*'lcprobe\[trackio\]'"):
        require_trackers(TrackConfig(also=["trackio"]))
