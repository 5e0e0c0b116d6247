"""A sweep that is trained here: a line for each trial, the plan once, and a study that can be probed."""

import json

import pytest
import yaml

from lcprobe.cli.commands import main
from lcprobe.config import load
from lcprobe.studies.evaluation.targets import find_targets, is_study
from lcprobe.studies.planning.plan import make_plan
from tests.tiny import write_config


@pytest.fixture(scope="module")
def swept(tmp_path_factory, data_settings):
    """The file of a sweep of two rates over a short training."""
    folder = tmp_path_factory.mktemp("sweep")
    train = {"tokens": 64 * 4 * 2, "checkpoint_every": 64 * 4 * 2}
    config = write_config(folder, data_settings, train=train, probe={"while_training": None}, match={"budget": None})
    given = {
        "program": "train.py",
        "method": "grid",
        "metric": {"name": "train/final_loss", "goal": "minimize"},
        "parameters": {"train.lr": {"values": [0.01, 0.001]}},
        "command": ["${program}", str(config), "grid=_drop_", "model.layout=mamba2", "${args_no_hyphens}"],
    }
    file = folder / "sweep.yml"
    file.write_text(yaml.safe_dump(given))
    return file


def test_a_sweep_is_a_study_with_one_line_a_trial(swept, capsys):
    assert main(["sweep", str(swept)]) == 0
    lines, study = capsys.readouterr().out.splitlines(), swept.parent / "runs" / "tiny"
    trials = [line for line in lines if line.startswith("trial ")]
    assert [line.split(": ")[:2] for line in trials[:2]] == [
        ["trial 1 of 2", "lr=0.01"],
        ["trial 2 of 2", "lr=0.001"],
    ]
    assert all("train/final_loss" in line and "512 tokens in" in line for line in trials[:2])
    assert sum(line.startswith("2 runs; ") for line in lines) == 1, "the plan of all trials, once"
    rows = json.loads((study / "sweep.json").read_text())["trials"]
    assert {row["trial"] for row in rows} == {"lr=0.01", "lr=0.001"}
    assert is_study(study)
    assert [(t.name, t.config.train.lr) for t in find_targets([study])] == [("lr=0.01", 0.01), ("lr=0.001", 0.001)]
    again = make_plan(load([str(study / "study.yaml")], []))
    assert [(run.name, run.config.train.lr) for run in again.runs] == [("lr=0.01", 0.01), ("lr=0.001", 0.001)]


@pytest.mark.parametrize(
    "given", ["--trials 0", "--trials -1", "--trials x", "--trials", "--trials 1 --trials 2", "--seed ²"]
)
def test_a_number_that_is_none_is_refused_in_one_line(swept, capsys, given):
    assert main(["sweep", str(swept), *given.split(), "--plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {given.split()[0]}: given ")
    assert error.count("\n") == 1


def test_the_two_kinds_of_sweeps_point_to_each_others_command(swept, capsys):
    assert main(["train", str(swept), "--plan"]) == 2
    assert f"lcprobe sweep {swept}" in capsys.readouterr().err
    assert main(["sweep", "configs/sweep/quickstart.yaml"]) == 2
    assert "train.py [CONFIG ...] configs/sweep/quickstart.yaml" in capsys.readouterr().err
