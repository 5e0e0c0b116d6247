"""A run that has a job of its own, a process in each of its tasks: pre-empted, it goes on as the same job, and ends as
the run of one process."""

import os
import signal
import time
from pathlib import Path

import pytest

from lcprobe.cli.commands import main
from lcprobe.files import digest_file, read_json
from lcprobe.studies.launchers.watching.state import study_state
from lcprobe.studies.tracking import read_metrics
from tests.tiny import start, write_config

pytest.importorskip("submitit")

STEPS, STEP = 150, 64 * 4
LAUNCHER = "launcher={type: slurm, executor: local, gpus_per_job: 0, gpus_per_node: 1}"
GRID = {"arch": {"mamba2": {"model": {"layout": "mamba2"}}}}


def config_of(folder: Path, data_settings) -> Path:
    folder.mkdir()
    train = {"tokens": STEP * STEPS, "checkpoint_every": STEP * STEPS, "accelerator": "cpu"}
    return write_config(
        folder, data_settings, grid=GRID, match={"budget": None}, train=train, probe={"while_training": None}
    )


def children(pid: int) -> list[int]:
    try:
        tasks = [*Path(f"/proc/{pid}/task").iterdir()]
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


@pytest.mark.slow
def test_a_run_of_two_nodes_that_is_pre_empted_goes_on_as_the_same_job(tmp_path, data_settings, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), f"{os.getcwd()}/kernels"]))
    alone, shared = (config_of(tmp_path / name, data_settings) for name in ("alone", "shared"))
    launch = start("main", ["train", str(shared), LAUNCHER, "train.devices=2"], tmp_path / "log")
    run = tmp_path / "shared" / "runs" / "tiny" / "mamba2"
    end = time.monotonic() + 120
    while time.monotonic() < end and launch.is_alive() and not (run / "metrics.csv").is_file():
        time.sleep(0.05)
    assert launch.pid is not None
    tasks = [task for controller in children(launch.pid) for task in children(controller)]
    assert len(tasks) == 2, (tmp_path / "log").read_text()
    for task in tasks:
        os.kill(task, signal.SIGUSR2)  # as SLURM does before it pre-empts a job
    launch.join(240)
    assert launch.exitcode == 0, (tmp_path / "log").read_text()
    assert read_json(run / "status.json")["status"] == "done"
    assert [unit.state for unit in study_state(run.parent).units] == ["done"]
    assert main(["train", str(alone), "train.accumulate=2"]) == 0
    ours, theirs = (max(tmp_path.glob(f"{name}/runs/tiny/mamba2/checkpoints/step-*")) for name in ("shared", "alone"))
    assert digest_file(ours / "model.safetensors") == digest_file(theirs / "model.safetensors")
    steps = [row["tokens"] / STEP for row in read_metrics(run / "metrics.csv") if "train/loss" in row]
    assert steps == [*range(1, STEPS + 1)], "each once"
    logs = "".join(path.read_text() for path in (run.parent / "work" / "logs" / "slurm").glob("*_log.*"))
    assert "Requeued job" in logs
    assert f"resuming {run.name}" in logs
