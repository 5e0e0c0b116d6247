"""Two processes and one process with two-fold accumulation train on the same data and end with the same weights."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import train_main
from lcprobe.errors import ConfigError
from lcprobe.files import read_json
from lcprobe.studies.tracking import read_metrics
from lcprobe.training.processes import SRUN, TORCHRUN, Processes, first_host, processes
from lcprobe.training.ranks import is_main, rank, world_size
from tests.conftest import ROOT
from tests.tiny import start, write_config

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


def by_torchrun(arguments: list[str], folder: Path) -> str:
    """What two processes print that torchrun starts."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def by_variables(arguments: list[str], folder: Path) -> str:
    """The same of two processes with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    logs = [folder / f"log-{i}" for i in range(2)]
    started = [
        start("train_main", arguments, log, {**shared, "RANK": str(i), "LOCAL_RANK": str(i)})
        for i, log in enumerate(logs)
    ]
    for process in started:
        process.join(240)
    said = "".join(log.read_text() for log in logs)
    assert [process.exitcode for process in started] == [0, 0], said[-3000:]
    return said


@pytest.mark.parametrize("launched", [by_variables, pytest.param(by_torchrun, marks=pytest.mark.slow)])
def test_two_processes_equal_two_fold_accumulation(tmp_path, data_settings, launched):
    folders = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        folders[name] = write_config(
            tmp_path / name, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24}, train=SHORT
        )
    assert train_main([str(folders["one"]), "train.accumulate=2"]) == 0
    said = launched([str(folders["two"]), "train.devices=2"], tmp_path)
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
    assert said.count("trained:") == 1, "one process speaks"


def test_the_wrong_number_of_processes_is_one_line(tmp_path, data_settings, capsys):
    config = write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24}, train=SHORT)
    assert train_main([str(config), "train.devices=2"]) == 2
    assert "error: train.devices: given 2; allowed: 1 (or start 2 with: torchrun" in capsys.readouterr().err


def test_a_gpu_where_there_is_none_is_one_line(tmp_path, data_settings, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = write_config(tmp_path, data_settings, train=SHORT)
    assert train_main([str(config), "train.accelerator=gpu"]) == 2
    assert "error: train.accelerator: given 'gpu'; allowed: auto | cpu here" in capsys.readouterr().err


@pytest.mark.parametrize("process", [pytest.param("0", marks=pytest.mark.slow), "1"])
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
    for name in (*TORCHRUN, *SRUN, "LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE"):
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


STEP = {
    "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_STEP_NODELIST": "gpu[07,12]",
    "SLURM_JOB_ID": "4242137", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
}  # fmt: skip


def test_processes_of_srun_meet_on_the_first_machine(environment):
    environment(STEP)
    assert processes() == Processes(16, 11, 3, 8, "gpu07", 15_000 + 2137, "srun")
    assert processes().nodes == 2
    environment({"WORLD_SIZE": "1"})  # a process that says that it is alone
    assert processes() == Processes()


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[07-09,12],cpu1", "gpu07"), ("a-[1,3]-ib", "a-1-ib"), ("x[5]", "x5")],
)
def test_the_first_machine_of_a_list(nodes, host):
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SLURM_PROCID": "16"}, r"^SLURM_PROCID: given '16'; allowed: 0 \.\. 15, as srun"),
        ({"SLURM_LOCALID": "8"}, r"^SLURM_LOCALID: given '8'; allowed: 0 \.\. 7"),
        ({"SLURM_STEP_TASKS_PER_NODE": "8,4"}, "^SLURM_STEP_TASKS_PER_NODE: given '8,4'; allowed: the same number"),
        ({"SLURM_STEP_TASKS_PER_NODE": "5"}, "^SLURM_STEP_TASKS_PER_NODE: given 5; allowed: a divisor"),
        ({"SLURM_STEP_NODELIST": ","}, "^SLURM_STEP_NODELIST"),
        ({"SLURM_JOB_ID": "", "SLURM_PROCID": ""}, "without SLURM_PROCID, SLURM_JOB_ID'; allowed: all of"),
    ],
)
def test_an_environment_that_srun_does_not_make_is_refused(environment, changed, message):
    environment(STEP | changed)
    with pytest.raises(ConfigError, match=message):
        processes()


def test_a_wrong_environment_is_one_line(tmp_path, data_settings, environment, capsys):
    environment({"WORLD_SIZE": "x"})
    assert train_main([str(write_config(tmp_path, data_settings))]) == 2
    assert capsys.readouterr().err.startswith("error: WORLD_SIZE: given 'x'")
    assert not (tmp_path / "runs").exists()
