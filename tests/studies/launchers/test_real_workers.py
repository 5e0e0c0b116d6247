"""The commands with workers of this machine: a sweep of learning rates and its runs, a sweep in W&B's format, a launcher
that is stopped and started again, and the probe that takes all GPUs by default."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lcprobe.choices import choose
from lcprobe.cli.commands import main
from lcprobe.files import digest_file, read_json
from lcprobe.locks import this_process
from lcprobe.studies.launchers import launch
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.studies.launchers.local import Local
from lcprobe.studies.launchers.watching.state import study_state
from lcprobe.studies.launchers.work.failures import append_failure, failure_of
from lcprobe.studies.launchers.work.orders import train_order
from lcprobe.studies.launchers.work.training import plans_of, run_units
from lcprobe.studies.status import write_status
from tests.tiny import TINY, start, write_config

STEP = 64 * 4


def weights(study: Path) -> dict[str, str]:
    found = sorted(study.rglob("checkpoints/step-*/model.safetensors"))
    return {p.relative_to(study).as_posix(): digest_file(p) for p in found}


@pytest.mark.slow
def test_a_sweep_of_rates_and_its_runs_are_those_of_one_process(tmp_path, data_settings, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), f"{os.getcwd()}/kernels"]))
    sweep = {"lrs": [0.003, 0.01], "tokens": 4 * STEP}
    train = {"tokens": 8 * STEP, "checkpoint_every": 8 * STEP}
    alone, shared = (
        write_config(folder, data_settings, study={"lr_sweep": sweep, "folder": str(folder)}, train=train)
        for folder in (tmp_path / "alone", tmp_path / "shared")
        if not folder.mkdir()
    )
    assert main(["train", str(alone)]) == 0
    process = start("main", ["train", str(shared), "launcher=local", "launcher.workers=2"], tmp_path / "log")
    study = tmp_path / "shared" / "tiny"
    wait_for(lambda: any(study.glob("sweep/*/checkpoints/step-*")), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == 75, (tmp_path / "log").read_text()
    assert {unit.state for unit in study_state(study).units} <= {"done", "waiting"}, "all workers have ended"
    assert main(["train", str(shared), "launcher=local", "launcher.workers=2"]) == 0
    assert weights(study) == weights(tmp_path / "alone" / "tiny")
    for name in ("lr_sweep.json", "sweep_used.json"):
        assert json.loads((study / name).read_text()) == json.loads((tmp_path / "alone" / "tiny" / name).read_text())
    assert main(["status", str(study)]) == 0


@pytest.mark.slow
def test_trials_on_two_devices_are_those_of_one_process(tmp_path, data_settings, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), f"{os.getcwd()}/kernels"]))
    study = {"lr_sweep": {"lrs": [0.01, 1e15], "tokens": 4 * STEP}}
    train = {"tokens": 6 * STEP, "checkpoint_every": 8 * STEP, "accelerator": "cpu", "warmup": 0}
    train |= {"guards": {"non_finite": "stop"}}
    grid = {"arch": {"mamba2": {"model": {"layout": "mamba2"}}}}
    alone, shared = (
        write_config(
            folder,
            data_settings,
            study={**study, "folder": str(folder)},
            train=train,
            grid=grid,
            match={"budget": None},
            probe={"while_training": None},
        )
        for folder in (tmp_path / "alone", tmp_path / "shared")
        if not folder.mkdir()
    )
    assert main(["train", str(alone), "train.accumulate=2"]) == 0
    assert main(["train", str(shared), "launcher=local", "train.devices=2"]) == 0
    ours, theirs = (tmp_path / name / "tiny" for name in ("shared", "alone"))
    assert len(weights(ours)) == 2, "of the trial that did not diverge, and of the run"
    assert weights(ours) == weights(theirs)
    assert [row["diverged_seeds"] for row in read_json(ours / "lr_sweep.json")["rows"]] == [0, 1]
    assert read_json(ours / "lr_sweep.json") == read_json(theirs / "lr_sweep.json")
    assert {unit.state for unit in study_state(ours).units} == {"done"}


def wait_for(happens, process, seconds=120.0):
    end = time.monotonic() + seconds
    while not happens() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.is_alive()


class Stand:
    """A session of which only what decides about launchers is there."""

    def __init__(self, split, context_parallel):
        class Probe:
            pass

        class Config:
            launcher = None
            probe = Probe()

        Config.probe.split, Config.probe.context_parallel = split, context_parallel
        self.config = Config()


@pytest.mark.parametrize(
    ("device", "gpus", "split", "ranks", "workers"),
    [("cuda", 4, False, 1, 4), ("cuda", 1, False, 1, None), ("cuda", 4, True, 1, None), ("cuda", 4, False, 2, 2), ("cuda", 4, False, 4, None),
     ("cpu", 0, False, 1, None), ("cpu", 4, False, 1, None)],
)  # fmt: skip
def test_all_gpus_of_a_machine_are_probed_on_by_default(monkeypatch, device, gpus, split, ranks, workers):
    names = [str(number) for number in range(gpus)]
    monkeypatch.setattr(launch, "device", lambda: device)
    monkeypatch.setattr(launch, "visible_gpus", lambda: names)
    choice = launch._on_all_gpus(Stand(split, ranks))
    assert (choice is None) == (workers is None)
    if choice is not None:
        task = launch.Task(Path("runs/s"), ("probe",), 40, ranks, Path("logs"))
        own = Local(choice.config, names)
        assert own.places(task) == workers
        shares = [own.environment(task, place)["CUDA_VISIBLE_DEVICES"] for place in range(workers)]
        assert ",".join(shares) == ",".join(names)
        assert own.places(replace(task, count=1)) == 1, "no more than there is work for"


def test_launchers_are_settings_of_a_command_and_not_of_runs(tmp_path, data_settings, monkeypatch, capsys):
    """With launcher.dry_run the script is printed and nothing is trained; what is written names no launcher."""
    config = write_config(tmp_path, data_settings, launcher={"type": "slurm", "dry_run": True, "jobs": 3})
    assert main(["train", str(config), "launcher.partition=gpu"]) == 0
    out = capsys.readouterr().out
    assert "#SBATCH --array=0-1%256" in out
    assert "#SBATCH --partition=gpu" in out
    study = tmp_path / "runs" / "tiny"
    assert f"lcprobe work {study} --units train" in out
    assert "launcher" not in yaml.safe_load((study / "study.yaml").read_text())
    assert (study / "work" / "train.sbatch").read_text() in out
    assert {unit.state for unit in study_state(study).units} == {"waiting"}
    assert len(study_state(study).units) == len(TINY["grid"]["arch"])
    assert choose(LAUNCHERS, "local", "launcher").config.retries == 2
    # a failure by numerics bars a run under the settings that it had, whatever rate a sweep gives it, and says so
    (plan,) = plans_of(study, train_order(study))
    swept = {
        run.name: replace(run, config=replace(run.config, train=replace(run.config.train, lr=0.5)))
        for run in plan.runs
    }
    units = run_units(plan, swept)
    known = {unit["name"]: unit["settings"] for unit in read_json(study / "work" / "train_units.json")["units"]}
    assert {unit.name: unit.settings for unit in units} == known
    bad = units[0]
    append_failure(bad.failures, failure_of(bad.name, this_process(), 4, "not finite", 3, 1, bad.settings))
    assert main(["train", str(config)]) == 0
    assert "#SBATCH --array=0-0%256" in capsys.readouterr().out
    assert [unit.name for unit in study_state(study).of("failed")] == [bad.name]
    assert main(["train", str(config), "train.guards.non_finite=rewind"]) == 0
    assert "#SBATCH --array=0-1%256" in capsys.readouterr().out
    assert study_state(study).of("failed") == []


def test_trials_of_runs_on_several_nodes_have_jobs_of_their_own_before_the_runs_have(tmp_path, data_settings, capsys):
    launcher = {"type": "slurm", "dry_run": True, "gpus_per_node": 1}
    sweep = {"lr_sweep": {"lrs": [0.003, 0.01], "tokens": 4 * STEP}, "folder": str(tmp_path)}
    config = write_config(tmp_path, data_settings, launcher=launcher, study=sweep, train={"devices": 2})
    study = tmp_path / "tiny"
    trials = [f"{arch}-lr={lr}-s0" for arch in ("mamba2", "hybrid") for lr in (0.003, 0.01)]
    assert main(["train", str(config)]) == 0
    assert sorted(path.name for path in (study / "work").glob("*.sbatch")) == sorted(f"{t}.sbatch" for t in trials)
    for trial in trials:
        script = (study / "work" / f"{trial}.sbatch").read_text()
        assert f"python -m lcprobe.studies.launchers.work.trial {study} {trial}\n" in script
        assert "#SBATCH --nodes=2" in script
        write_status(study / "sweep" / trial, {"status": "done", "step": 4})
        loss = 1.0 if "0.01" in trial else 2.0
        (study / "sweep" / trial / "metrics.csv").write_text(f"step,train/loss,train/text_loss\n4,{loss},{loss}\n")
    capsys.readouterr()
    assert main(["train", str(config)]) == 0
    printed = capsys.readouterr().out
    for arch in ("mamba2", "hybrid"):
        assert f"python -m lcprobe train {study}/work/runs/{arch}.yaml\n" in printed
        assert "lr: 0.01\n" in (study / "work" / "runs" / f"{arch}.yaml").read_text()
    assert "work.trial" not in printed
