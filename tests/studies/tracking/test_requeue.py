"""A sweep by workers, of which one is killed: every trial is one run with every row once, wherever it is tracked."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from lcprobe.studies.tracking import WandbRun, read_metrics
from lcprobe.studies.tracking.identity import run_id
from lcprobe.studies.tracking.log_file import read_log
from lcprobe.studies.tracking.sync import plan_of, tracked_in
from lcprobe.studies.tracking.wandb_tracker import saved_run
from tests.studies.tracking.also.read_back import tensorboard_rows, trackio_rows
from tests.tiny import write_config

pytestmark = pytest.mark.slow
STEPS = 60


def workers_of(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "lcprobe work"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def test_a_sweep_by_workers_with_one_killed_has_one_history_of_each_trial(tmp_path, data_settings):
    for name in ("tensorboard", "trackio"):
        pytest.importorskip(name, reason=f"pip install 'lcprobe[{name}]'")
    track = {"wandb": "offline", "also": ["tensorboard", "trackio"]}
    train = {"tokens": 256 * STEPS, "checkpoint_every": 256 * 4}
    config = write_config(tmp_path, data_settings, track=track, train=train, match={"budget": None})
    given = {
        "program": "train.py",
        "method": "grid",
        "parameters": {"train.lr": {"values": [0.01, 0.02]}},
        "command": ["${program}", str(config), "grid=_drop_", "model.layout=mamba2 x 2", "${args_no_hyphens}"],
    }
    sweep = tmp_path / "sweep.yml"
    sweep.write_text(yaml.safe_dump(given))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio"), "OMP_NUM_THREADS": "1"}
    words = ["sweep", str(sweep), "launcher=local", "launcher.workers=1"]
    log = open(tmp_path / "log", "w")  # noqa: SIM115
    process = subprocess.Popen([sys.executable, "-m", "lcprobe", *words], env=environment, stdout=log, stderr=log)
    study = tmp_path / "runs" / "tiny"
    rows = study / "lr=0.01" / "metrics.csv", study / "lr=0.02" / "metrics.csv"
    while process.poll() is None and max(len(read_metrics(path)) for path in rows) < 10:
        time.sleep(0.05)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    assert process.wait(timeout=550) == 0, (tmp_path / "log").read_text()
    wanted = [256 * (step + 1) for step in range(STEPS)]
    tracked = plan_of(tracked_in(study), "")
    assert tracked.superseded >= 1, "the killed one began a folder"
    assert len(tracked.send) == 2
    for trial in ("lr=0.01", "lr=0.02"):
        run = saved_run(study / trial)
        assert isinstance(run, WandbRun)
        (sent,) = [one for one in tracked.send if one.id == run.id]
        logged = read_log(sent.log)
        assert run.id == run_id(study, trial, "train")
        assert logged is not None
        assert (sorted(logged.losses), logged.exit_code) == (wanted, 0)
        assert [row["tokens"] for row in read_metrics(study / trial / "metrics.csv") if "train/loss" in row] == wanted
        for found in (tensorboard_rows(run), trackio_rows(run, tmp_path / "trackio")):
            assert [step for step, _ in found["train/loss"]] == wanted
            assert len(found["train/final_loss"]) == 1
