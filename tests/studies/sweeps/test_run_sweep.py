"""A sweep that is trained here: a line for each trial, the plan once, and a study that can be probed."""

import json

import pytest
import yaml

from lcprobe.cli.commands import main
from lcprobe.config import load
from lcprobe.errors import ConfigError
from lcprobe.files import write_atomic
from lcprobe.studies.evaluation.targets import find_targets, is_study
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.training.sweep_trial import add_trial
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
    (study.parent / "link").symlink_to(study)
    with pytest.raises(ConfigError, match="again; allowed: each run, or checkpoint, once"):
        find_targets([study, study.parent / "link"])
    again = make_plan(load([str(study / "study.yaml")], []))
    assert [(run.name, run.config.train.lr) for run in again.runs] == [("lr=0.01", 0.01), ("lr=0.001", 0.001)]


def test_trials_of_agents_are_a_study_that_is_probed_as_its_file_says(swept, monkeypatch):
    """Each process has one trial; a study that is no sweep is left alone; a run is probed as it was trained."""
    config = str(swept.parent / "tiny.yaml")
    words = [config, "study.name=agents", "grid=_drop_", "model.layout=mamba2"]
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    for id, more in (("q1", ["train.lr=0.02"]), ("r2", ["train.lr=0.03", "seed=4"])):
        monkeypatch.setenv("WANDB_RUN_ID", id)
        assert main(["train", *words, *more]) == 0
    study, other = swept.parent / "runs" / "agents", swept.parent / "other"
    write_atomic(other / "study.yaml", "grid: {seed: [0]}")
    add_trial(other, {"study": {"run": "q1"}})
    trained = [(t.name, t.config.train.lr, t.config.seed) for t in find_targets([study])]
    assert trained == [("q1", 0.02, 0), ("r2", 0.03, 4)]
    assert (other / "study.yaml").read_text() == "grid: {seed: [0]}"
    written = load([str(study / "study.yaml")], [])
    written["probe"]["grids"] = [{"lengths": [1], "n": 17}]
    written["train"]["lr"] = 9.0
    (study / "study.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    assert [(t.config.probe.grids[0].n, t.config.train.lr) for t in find_targets([study])] == [(17, 0.02), (17, 0.03)]
    assert [t.config.probe.grids[0].n for t in find_targets([study / "q1"])] == [8]


@pytest.mark.parametrize(
    "given", ["--trials 0", "--trials -1", "--trials x", "--trials", "--trials 1 --trials 2", "--seed ²"]
)
def test_a_number_that_is_none_is_refused_in_one_line(swept, capsys, given):
    assert main(["sweep", str(swept), *given.split(), "--plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {given.split()[0]}: given ")
    assert error.count("\n") == 1


def test_trials_whose_keys_end_alike_are_all_planned_and_trained(swept, tmp_path, capsys):
    given = yaml.safe_load(swept.read_text())
    given["parameters"] = {
        "model.mixers.mamba2.head_dim": {"values": [4, 8]},
        "model.mixers.attention.head_dim": {"value": 8},
    }
    given["command"][-2:] = ["model.layout=mamba2, attention", "study.name=alike", "${args_no_hyphens}"]
    file = tmp_path / "alike.yml"
    file.write_text(yaml.safe_dump(given, sort_keys=False))
    names = {f"mamba2.head_dim={a}-attention.head_dim=8" for a in (4, 8)}
    assert main(["sweep", str(file), "--plan"]) == 0
    planned = capsys.readouterr().out
    assert all(name in planned for name in names)
    assert main(["sweep", str(file)]) == 0
    study = swept.parent / "runs" / "alike"
    rows = json.loads((study / "sweep.json").read_text())["trials"]
    assert {row["trial"] for row in rows} == names
    models = {name: yaml.safe_load((study / name / "config.yaml").read_text())["model"] for name in names}
    assert all(model["mixers"]["mamba2"]["head_dim"] == int(name[16]) for name, model in models.items())


def test_a_name_that_all_trials_would_have_is_refused(swept, capsys):
    assert main(["sweep", str(swept), "study.run=mine", "--plan"]) == 2
    error = capsys.readouterr().err
    assert (
        error == "error: study.run: given 'mine'; allowed: none in a sweep, whose trials are named by their values\n"
    )


@pytest.mark.parametrize("place", ["command line", "command", "config"])
def test_a_launcher_is_that_of_the_command_line_the_command_or_a_config(swept, tmp_path, monkeypatch, place):
    """A word for it in any of the three places starts workers; null on the command line starts none."""
    from lcprobe.studies.sweeps import run_sweep

    started = []
    monkeypatch.setattr(run_sweep, "run_sweep", lambda sweep, trials, overrides, others=None: started.append(others))
    given, words = yaml.safe_load(swept.read_text()), []
    if place == "command line":
        words = ["launcher=local"]
    elif place == "command":
        given["command"].insert(2, "launcher=local")
    else:
        (tmp_path / "workers.yaml").write_text("launcher: {type: local, workers: 2}")
        given["command"].insert(2, str(tmp_path / "workers.yaml"))
    file = tmp_path / "sweep.yml"
    file.write_text(yaml.safe_dump(given))
    assert main(["sweep", str(file), *words]) == 0
    assert main(["sweep", str(file), *words, "launcher=null"]) == 0
    assert [one is not None for one in started] == [True, False]


def test_the_two_kinds_of_sweeps_point_to_each_others_command(swept, capsys):
    assert main(["train", str(swept), "--plan"]) == 2
    assert f"lcprobe sweep {swept}" in capsys.readouterr().err
    assert main(["sweep", "configs/sweep/quickstart.yaml"]) == 2
    assert "train.py [CONFIG ...] configs/sweep/quickstart.yaml" in capsys.readouterr().err
