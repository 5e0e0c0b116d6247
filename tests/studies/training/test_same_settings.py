"""A study whose runs have begun takes no other settings: not by workers, not where it would end half-way."""

import pytest
import yaml

from lcprobe.cli.commands import main, train_main
from lcprobe.config import load, to_yaml
from lcprobe.errors import ConfigError
from lcprobe.locks import folder_lock
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.training.train_study import check_same_runs
from tests.tiny import write_config

BY_WORKERS = ["launcher=local", "launcher.workers=1"]


@pytest.fixture
def config(tmp_path, data_settings):
    """Two seeds of a model, of which the first has begun."""
    path = write_config(
        tmp_path, data_settings, grid={"seed": [0, 1]}, model={"layout": "mamba2 x 2"}, match={"budget": None}
    )
    run = make_plan(load([str(path)], [])).runs[0]
    (run.folder / "checkpoints").mkdir(parents=True)
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    return path


def plan_of(config, *changes):
    return make_plan(load([str(config)], list(changes)))


@pytest.mark.parametrize("by", [[], BY_WORKERS])
def test_nothing_is_written_for_other_settings(config, by, capsys):
    study = config.parent / "runs" / "tiny"
    (study / "study.yaml").write_text("as it was")
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*")}
    assert train_main([str(config), "train.lr=0.5", *by]) == 2
    error = capsys.readouterr().err
    assert "error: train.lr: given 0.5; allowed: 0.01 as in " in error
    assert "Traceback" not in error
    assert {path: path.stat().st_mtime_ns for path in study.rglob("*")} == before


def test_more_runs_and_what_changes_no_result_are_no_other_settings(config):
    check_same_runs(plan_of(config, "grid.seed=[0,1,2]", "train.log_every=3", "train.accumulate=2"))


def test_a_rate_that_a_sweep_will_give_is_not_compared(config):
    sweep = ["study.lr_sweep.lrs=[0.1,0.2]", "study.lr_sweep.tokens=512", "train.lr=_drop_"]
    check_same_runs(plan_of(config, *sweep))
    with pytest.raises(ConfigError, match=r"^train\.clip: given 3\.0; allowed: 1\.0 as in "):
        check_same_runs(plan_of(config, *sweep, "train.clip=3"))


def test_a_run_that_a_live_process_begins_has_begun(config):
    folder = config.parent / "runs" / "tiny" / "seed=0"
    folder = next(path for path in folder.parent.iterdir() if (path / "config.yaml").is_file())
    (folder / "checkpoints").rmdir()
    check_same_runs(plan_of(config, "train.lr=0.5"))  # nothing of it would be lost
    with folder_lock(folder), pytest.raises(ConfigError, match=r"^train\.lr: given 0\.5"):
        check_same_runs(plan_of(config, "train.lr=0.5"))


@pytest.mark.parametrize("by", [[], BY_WORKERS])
def test_nor_for_a_sweep(config, by, tmp_path, capsys):
    command = ["${program}", str(config), "grid=_drop_", "${args_no_hyphens}"]
    parameters = {"train.lr": {"values": [0.01]}}
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        yaml.safe_dump({"program": "train.py", "method": "grid", "command": command, "parameters": parameters})
    )
    study = config.parent / "runs" / "tiny"
    run = make_plan(load([str(config)], ["grid=_drop_", "study.run=lr=0.01"])).runs[0]
    (run.folder / "checkpoints").mkdir(parents=True)
    (run.folder / "config.yaml").write_text(to_yaml(run.config))
    assert main(["sweep", str(sweep), "train.clip=3", *by]) == 2
    assert "error: train.clip: given 3.0; allowed: 1.0 as in " in capsys.readouterr().err
    assert not (study / "study.yaml").exists()
