"""Two processes and one process with two-fold accumulation train on the same data and end with the same weights."""

import subprocess
import sys

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import train_main
from lcprobe.files import read_json
from lcprobe.studies.trackers import read_metrics
from tests.conftest import ROOT
from tests.tiny import write_config

GRID = {
    "arch": {
        "hybrid": {
            "model": {"layout": "attention+mlp, mamba2", "positions": {"type": "randomized", "max_length": 512}},
        }
    }
}
SHORT = {
    "context_length": 64,
    "tokens": 64 * 4 * 8,
    "batch_tokens": 256,
    "threads": 1,
    "log_every": 1,
    "accelerator": "cpu",
    "initial_state": {"type": "fitted", "share": 0.7},  # measured over the rows of both processes
}


def test_two_processes_equal_two_fold_accumulation(tmp_path, data_settings):
    folders = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        folders[name] = write_config(
            tmp_path / name, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24}, train=SHORT
        )
    assert train_main([str(folders["one"]), "train.accumulate=2"]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run(
        [*launch, str(folders["two"]), "train.devices=2"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = {name: tmp_path / name / "runs" / "tiny" / "hybrid" for name in folders}
    status = {name: read_json(run / "status.json") for name, run in runs.items()}
    assert status["one"]["data_digest"] == status["two"]["data_digest"]
    assert status["two"]["tokens"] == 64 * 4 * 8
    weights = {
        name: load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors") for name, run in runs.items()
    }
    worst = max(float((weights["one"][k] - weights["two"][k]).abs().max()) for k in weights["one"])
    assert worst == 0, "two parts have one sum"
    rows = {
        name: [
            {k: v for k, v in row.items() if k != "train/tokens_per_second"}
            for row in read_metrics(run / "metrics.csv")
        ]
        for name, run in runs.items()
    }
    assert rows["one"] == rows["two"]
    assert done.stdout.count("trained:") == 1, "one process speaks"


def test_the_wrong_number_of_processes_is_one_line(tmp_path, data_settings, capsys):
    config = write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24}, train=SHORT)
    assert train_main([str(config), "train.devices=2"]) == 2
    assert "error: train.devices: given 2; allowed: 1 (or start 2 with: torchrun" in capsys.readouterr().err


def test_a_gpu_where_there_is_none_is_one_line(tmp_path, data_settings, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = write_config(tmp_path, data_settings, train=SHORT)
    assert train_main([str(config), "train.accelerator=gpu"]) == 2
    assert "error: train.accelerator: given 'gpu'; allowed: auto | cpu here" in capsys.readouterr().err


@pytest.mark.parametrize("process", ["0", "1"])
def test_an_allocation_of_several_tasks_does_not_stop_a_single_process(tmp_path, data_settings, monkeypatch, process):
    """Variables as `salloc --ntasks=2` sets them, and as `srun` does for the second task."""
    for name, value in {
        "JOB_ID": "7",
        "JOB_NAME": "train",
        "NTASKS": "2",
        "PROCID": process,
        "LOCALID": process,
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name, value in {"NODEID": "0", "NNODES": "1", "JOB_NODELIST": "n1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    config = write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24}, train=SHORT)
    assert train_main([str(config)]) == 0
    assert (tmp_path / "runs" / "tiny" / "hybrid" / "metrics.csv").is_file()
