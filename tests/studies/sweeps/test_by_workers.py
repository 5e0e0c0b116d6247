"""A sweep whose trials are trained by a launcher's workers is that of one process; each trial's W&B folder is found."""

import json
import os

import pytest
import yaml

from lcprobe.cli.commands import main
from lcprobe.files import digest_file
from lcprobe.studies.tracking.sync import tracked_in
from lcprobe.studies.tracking.wandb_tracker import saved_run
from tests.tiny import write_config

STEP = 64 * 4


def sweep_of(folder, data_settings):
    """The file of a sweep of two rates over a short training."""
    folder.mkdir()
    train = {"tokens": STEP * 3, "checkpoint_every": STEP * 3, "accelerator": "cpu"}
    config = write_config(folder, data_settings, train=train, probe={"while_training": None}, match={"budget": None})
    given = {
        "method": "grid",
        "metric": {"name": "train/final_loss"},
        "parameters": {"train.lr": {"values": [0.01, 0.001]}},
        "command": ["${program}", str(config), "grid=_drop_", "model.layout=mamba2", "${args_no_hyphens}"],
    }
    (folder / "sweep.yml").write_text(yaml.safe_dump(given))
    return folder / "sweep.yml"


def results(folder):
    """The digests of the final weights of each trial, and what the sweep says of them."""
    study = folder / "runs" / "tiny"
    found = sorted(study.glob("*/checkpoints/step-*/model.safetensors"))
    assert len(found) == 2
    weights = {path.relative_to(study).as_posix(): digest_file(path) for path in found}
    return weights, json.loads((study / "sweep.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alone", "shared"),
    [
        (["track.wandb=offline"], ["launcher=local", "launcher.workers=2", "track.wandb=offline"]),
        (["train.accumulate=2"], ["launcher=local", "launcher.workers=1", "train.devices=2"]),
    ],
)
def test_a_sweep_by_workers_is_that_of_one_process(tmp_path, data_settings, monkeypatch, capsys, alone, shared):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), f"{os.getcwd()}/kernels"]))
    files = {name: sweep_of(tmp_path / name, data_settings) for name in ("alone", "shared")}
    assert main(["sweep", str(files["alone"]), *alone]) == 0
    capsys.readouterr()
    assert main(["sweep", str(files["shared"]), *shared]) == 0
    said = capsys.readouterr().out
    assert results(tmp_path / "shared") == results(tmp_path / "alone")
    assert said.count("trial 1 of 2: lr=0.01: train/final_loss") == 1
    if "track.wandb=offline" in shared:
        study = tmp_path / "shared" / "runs" / "tiny"
        runs = [saved_run(study / name) for name in ("lr=0.01", "lr=0.001")]
        assert {one.id for one in tracked_in(study)} == {run.id for run in runs if run is not None}
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert main(["sync", str(study)]) == 74
        error = capsys.readouterr().err
        assert error == "error: W&B: no answer from http://127.0.0.1:9; nothing was sent\n"
