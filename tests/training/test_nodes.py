"""A run on several nodes, here two with one process each, is the run of one process; it stops and goes on as one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lcprobe.cli.commands import train_main
from lcprobe.files import read_json
from lcprobe.studies.tracking import read_metrics
from tests.conftest import ROOT
from tests.tiny import write_config
from validation.forked import run_forked

STEP, STEPS = 64 * 4, 150
GRID = {"arch": {"hybrid": {"model": {"layout": "attention+mlp, mamba2"}}}}


def config_of(folder: Path, data_settings, steps: int) -> Path:
    folder.mkdir()
    train = {"tokens": STEP * steps, "checkpoint_every": STEP * steps, "accelerator": "cpu"}
    probe = {"while_training": None}
    return write_config(
        folder, data_settings, grid=GRID, match={"budget": None}, model={"d_ff": 24}, train=train, probe=probe
    )


def weights(folder: Path):
    return load_file(max(folder.glob("runs/tiny/hybrid/checkpoints/step-*")) / "model.safetensors")


def check_equal(folder: Path, other: Path) -> None:
    """Two processes have the sums of two parts, as one process with two-fold accumulation."""
    ours, theirs = weights(folder), weights(other)
    assert max(float((value - theirs[name]).abs().max()) for name, value in ours.items()) == 0


@pytest.mark.slow
def test_a_process_on_each_of_two_nodes_trains_as_one_process(tmp_path, data_settings):
    one, two = (config_of(tmp_path / name, data_settings, 4) for name in ("one", "two"))
    assert run_forked(2, train_main, [str(two), "train.devices=2"], nodes=2) == 0
    assert train_main([str(one), "train.accumulate=2"]) == 0
    check_equal(tmp_path / "two", tmp_path / "one")


def agents(arguments: list[str], logs: Path) -> list["subprocess.Popen[bytes]"]:
    """torchrun's agents, one for each node, which find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600", "OMP_NUM_THREADS": "1"}
    started = []
    for node in range(2):
        with open(logs.with_suffix(f".{node}"), "ab") as log:
            started.append(
                subprocess.Popen([*launch, "train.py", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log)
            )
    return started


@pytest.mark.slow
def test_sigterm_to_one_node_saves_and_stops_both_and_they_go_on(tmp_path, data_settings):
    one, two = (config_of(tmp_path / name, data_settings, STEPS) for name in ("one", "two"))
    run, arguments = tmp_path / "two" / "runs" / "tiny" / "hybrid", [str(two), "train.devices=2"]
    nodes = agents(arguments, tmp_path / "log")
    end = time.monotonic() + 120
    while time.monotonic() < end and not (run / "metrics.csv").is_file():
        time.sleep(0.05)
    nodes[1].send_signal(signal.SIGTERM)
    codes = [node.wait(120) for node in nodes]
    said = "".join(path.read_text() for path in tmp_path.glob("log.*"))
    assert 0 not in codes, said[-3000:]
    status = read_json(run / "status.json")
    assert (status["status"], status["exit_code"]) == ("stopped", 75), said[-3000:]
    stopped = int(max((run / "checkpoints").glob("step-*")).name.partition("-")[2])
    assert 0 < stopped < STEPS
    assert f"stopped by SIGTERM at step {stopped} of {STEPS}, saved" in status["why"]
    assert [node.wait(240) for node in agents(arguments, tmp_path / "log")] == [0, 0]
    assert train_main([str(one), "train.accumulate=2"]) == 0
    check_equal(tmp_path / "two", tmp_path / "one")
    steps = [row["tokens"] / STEP for row in read_metrics(run / "metrics.csv") if "train/loss" in row]
    assert steps == [*range(1, STEPS + 1)], "each once"
