"""Two processes and one process with two-fold accumulation train on the same data and end with the same weights."""

import subprocess
import sys

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import train_main
from lcprobe.errors import ConfigError
from lcprobe.files import read_json
from lcprobe.studies.tracking import read_metrics
from lcprobe.training.ranks import TORCHRUN, is_main, rank, world_size
from tests.conftest import ROOT
from tests.tiny import write_config

TOGETHER = {"LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
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


@pytest.fixture
def environment(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    return lambda variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


@pytest.mark.parametrize(
    ("variables", "size", "number"),
    [
        ({}, 1, 0),
        ({"RANK": "1"}, 1, 0),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": ""}, 1, 0),
        ({"WORLD_SIZE": "", "RANK": ""}, 1, 0),
        ({"WORLD_SIZE": "1", "RANK": " "}, 1, 0),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1, 0),
        ({**TOGETHER, "WORLD_SIZE": "4", "RANK": "3"}, 4, 3),
    ],
)
def test_the_rank_counts_only_among_several_processes(environment, variables, size, number):
    environment(variables)
    assert (world_size(), rank(), is_main()) == (size, number, number == 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "x"}, "^WORLD_SIZE: given 'x'; allowed: >= 1, as torchrun"),
        ({"WORLD_SIZE": "0"}, "^WORLD_SIZE: given '0'"),
        ({"WORLD_SIZE": "9" * 5000}, "^WORLD_SIZE: given '99"),
        ({"WORLD_SIZE": "1", "RANK": "1"}, r"^RANK: given '1'; allowed: 0 \.\. 0, as torchrun"),
        ({**TOGETHER, "WORLD_SIZE": "2", "RANK": "2"}, r"^RANK: given '2'; allowed: 0 \.\. 1"),
        ({**TOGETHER, "WORLD_SIZE": "2", "RANK": "x"}, "^RANK: given 'x'"),
        ({**TOGETHER, "WORLD_SIZE": "2"}, "^environment: given 'WORLD_SIZE=2 without RANK'"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "without LOCAL_RANK, MASTER_ADDR, MASTER_PORT'"),
    ],
)
def test_an_environment_that_torchrun_does_not_make_is_refused(environment, variables, message):
    environment(variables)
    with pytest.raises(ConfigError, match=message):
        rank()


def test_a_wrong_environment_is_one_line(tmp_path, data_settings, environment, capsys):
    environment({"WORLD_SIZE": "x"})
    assert train_main([str(write_config(tmp_path, data_settings))]) == 2
    assert capsys.readouterr().err.startswith("error: WORLD_SIZE: given 'x'")
    assert not (tmp_path / "runs").exists()
