"""A study trained by two processes that divide the model: probed while it trains, continued by one process, evaluated
from parts, and consolidated."""

import shutil

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import evaluate_main, main, train_main
from lcprobe.files import read_json
from lcprobe.studies.tracking import read_metrics
from tests.tiny import write_config
from validation.forked import run_forked

GRID = {"arch": {"hybrid": {"model": {"layout": "attention+mlp, mamba2"}}}}
SETTINGS = {"accelerator": "cpu", "tokens": 64 * 4 * 4, "probe_every": 64 * 4 * 2}


@pytest.mark.slow
def test_a_study_of_two_processes_is_that_of_one(tmp_path, data_settings, capsys):
    outcomes = {}
    for name, changes in (("two", ["train.devices=2", "train.strategy=fsdp2"]), ("one", [])):
        (tmp_path / name).mkdir()
        config = write_config(
            tmp_path / name, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24},
            train=_settings(),
        )  # fmt: skip
        assert run_forked(2 if changes else 1, train_main, [str(config), *changes]) == 0
        run = tmp_path / name / "runs" / "tiny" / "hybrid"
        rows = list(read_metrics(run / "metrics.csv"))
        outcomes[name] = run, read_json(run / "status.json"), rows
    (parts, status, rows), (_, of_one, rows_of_one) = outcomes["two"], outcomes["one"]
    assert status["data_digest"] == of_one["data_digest"]
    losses = [[row["train/loss"] for row in some if "train/loss" in row] for some in (rows, rows_of_one)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    probed = [[row for row in some if any(key.startswith("probe/") for key in row)] for some in (rows, rows_of_one)]
    assert len(probed[0]) == len(probed[1]) > 0
    checkpoint = max((parts / "checkpoints").glob("step-*"))
    assert (checkpoint / "model.index.json").is_file()
    assert evaluate_main([str(parts), "probe.context=_drop_"]) == 0
    assert main(["consolidate", str(parts)]) == 0
    assert "consolidated (weights" in capsys.readouterr().out
    assert (checkpoint / "model.safetensors").is_file()
    # the run goes on from its earlier checkpoint, which two processes wrote, with one, accumulating
    weights = load_file(checkpoint / "model.safetensors")
    shutil.rmtree(checkpoint)
    config = tmp_path / "two" / "tiny.yaml"
    assert run_forked(1, train_main, [str(config), "train.accumulate=2"]) == 0
    again = load_file(checkpoint / "model.safetensors")
    assert max(float((value - again[name]).abs().max()) for name, value in weights.items()) <= 1e-5
    assert read_json(parts / "status.json")["data_digest"] == status["data_digest"]


def _settings():
    return {
        "context_length": 64,
        "batch_tokens": 256,
        "lr": 0.01,
        "log_every": 1,
        "threads": 1,
        "checkpoint_every": 512,
        **SETTINGS,
    }
