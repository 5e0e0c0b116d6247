"""Sweeps in W&B's format: the same trials here as W&B's agents would be given, and what needs its server is refused."""

from pathlib import Path

import pytest
import yaml

from lcprobe.config import load
from lcprobe.errors import ConfigError
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.sweeps.sweep_file import read_sweep
from lcprobe.studies.training.sweep_trial import one_run

COMMAND = ["${env}", "python", "${program}", "a.yaml", "study.name=s", "${args_no_hyphens}", "seed=1"]


def sweep_of(folder: Path, **changes):
    given = {
        "program": "train.py",
        "method": "grid",
        "metric": {"name": "train/final_loss", "goal": "minimize"},
        "parameters": {"train.lr": {"values": [0.01, 0.001]}, "model.d_model": {"value": 64}, "seed": {"min": 0, "max": 2}},
        "command": COMMAND,
    }  # fmt: skip
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(given | changes, sort_keys=False))
    return read_sweep(path)


def test_a_grid_has_every_combination_in_order(tmp_path):
    trials = sweep_of(tmp_path).trials(None, 0)
    assert [(t["train.lr"], t["seed"]) for t in trials] == [(lr, s) for lr in (0.01, 0.001) for s in (0, 1, 2)]
    assert sweep_of(tmp_path, run_cap=2).trials(None, 0) == trials[:2]


def test_a_trial_is_the_command_that_an_agent_of_wandb_runs(tmp_path):
    """By W&B's own functions, from the program on."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    sweep = sweep_of(tmp_path)
    for trial in sweep.trials(None, 0):
        args = utils.create_sweep_command_args({"args": {key: {"value": value} for key, value in trial.items()}})
        words = [w for word in utils.create_sweep_command(COMMAND) for w in args.get(word[2:-1], [word])]
        assert sweep.words(trial) == words[words.index("${program}") + 1 :]


def test_random_trials_are_those_of_their_seed_and_within_their_bounds(tmp_path):
    spread = {"min": 1e-4, "max": 1e-1, "distribution": "log_uniform_values"}
    parameters = {"train.lr": spread, "train.clip": {"min": 0.0, "max": 2.0}, "seed": {"min": 0, "max": 3},
                  "model.norm": {"values": ["rms", "layer"], "probabilities": [0.0, 1.0]}}  # fmt: skip
    sweep = sweep_of(tmp_path, method="random", parameters=parameters)
    trials = sweep.trials(400, 7)
    assert trials == sweep.trials(400, 7)
    assert trials != sweep.trials(400, 8)
    assert all(1e-4 <= t["train.lr"] <= 1e-1 and 0 <= t["train.clip"] <= 2 for t in trials)
    assert {t["seed"] for t in trials} == {0, 1, 2, 3}
    assert {t["model.norm"] for t in trials} == {"layer"}
    assert 0.4 < sum(t["train.lr"] < 10**-2.5 for t in trials) / 400 < 0.6, "half of them below the geometric mean"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "bayes"}, "method: given 'bayes'; allowed: grid | random here; bayes needs W&B's server: wandb sweep"),
        ({"method": "random"}, "run_cap: given 'nothing, in a random sweep'"),
        ({"programme": "train.py"}, "did you mean 'program'"),
        ({"program": "evaluate.py"}, "program: given 'evaluate.py'; allowed: train.py"),
        ({"metric": {"goal": "min"}}, "metric.goal: given 'min'; allowed: minimize | maximize"),
        ({"command": ["python", "train.py"]}, "command: given ['python', 'train.py']; allowed: a list with ${program}"),
        ({"parameters": {"a": {"min": 0.0, "max": 1.0}}}, "parameters.a"),
        ({"parameters": {"a": {"parameters": {}}}}, "parameters.a: given 'parameters'"),
        ({"parameters": {"a": {"min": 0.0, "max": 1.0, "distribution": "beta"}}}, "parameters.a.distribution: given 'beta'"),
        ({"parameters": ["train.lr"]}, "parameters: given ['train.lr']; allowed: a mapping of settings"),
        ({"parameters": None}, "parameters: given None; allowed: a mapping of settings"),
        ({"parameters": {"launcher.workers": {"value": 1}}}, "parameters: given 'launcher.workers'; allowed: settings of a run"),
        ({"parameters": {"study.run": {"values": ["a", "b"]}}}, "parameters: given 'study.run'"),
        ({"parameters": {"a": {"values": [1], "min": 0, "max": 2}}}, "allowed: one of: value | values | min and max"),
        ({"parameters": {"a": {"distribution": "uniform"}}}, "allowed: one of: value | values | min and max"),
        ({"parameters": {"a": {"value": 2, "distribution": "foo"}}}, "a.distribution: given 'foo'; allowed: constant beside value"),
        ({"parameters": {"a": {"values": [1, 2], "distribution": "normal"}}}, "allowed: categorical | categorical_w_probabilities beside values"),
        ({"parameters": {"a": {"values": [1, 2], "distribution": "constant"}}}, "a.distribution: given 'constant'"),
        ({"parameters": {"a": {"value": 2, "probabilities": [1]}}}, "a.probabilities: given [1]; allowed: probabilities of values alone"),
        ({"parameters": {"a": {"min": 1, "max": 2, "probabilities": [1, 0]}}}, "a.probabilities"),
        ({"parameters": {"a": {"min": 0.5, "max": 3.5, "distribution": "int_uniform"}}}, "int_uniform between whole numbers"),
        ({"parameters": {"a": {"min": 1, "max": 3, "distribution": ["uniform"]}}}, "a.distribution: given ['uniform']"),
        ({"parameters": {"a": {"min": 0, "max": 10**30}}}, "allowed: less than 1,000,000 values in a grid"),
        ({"parameters": {"a": {"min": 0, "max": float("inf")}}}, "parameters.a.max: given inf"),
        ({"parameters": {"a": {"min": 0, "max": 10**400}}}, "parameters.a.max: given 1000"),
        ({"metric": "train/final_loss"}, "metric: given 'train/final_loss'; allowed: {name: train/final_loss, goal: minimize}"),
        ({"metric": {"name": 3}}, "metric.name: given 3"),
        ({"run_cap": True}, "run_cap: given True"),
        *(
            ({"method": "random", "parameters": {"a": {"values": [1, 2], "probabilities": chances}}}, "parameters.a.probabilities")
            for chances in (["a", "b"], [0, 0], [-1, 2], [1], [float("inf"), 1])
        ),
    ],
)  # fmt: skip
def test_mistakes_and_what_needs_a_server_are_named_in_one_line(tmp_path, changes, said):
    with pytest.raises(ConfigError) as error:
        sweep_of(tmp_path, **changes).trials(None, 0)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_null_is_swept_as_null(tmp_path):
    """W&B's agents write it as Python's None, which YAML takes for a text."""
    values = [None, 100_000, [1, None], {"type": "rope"}]
    sweep = sweep_of(tmp_path, parameters={"train.warmup": {"values": values}})
    assert [load([], [sweep.words(trial)[-2]])["train"]["warmup"] for trial in sweep.trials(None, 0)] == values


def test_what_has_no_effect_without_a_server_is_said(tmp_path):
    (note,) = sweep_of(tmp_path, early_terminate={"type": "hyperband"}).notes
    assert note.startswith("early_terminate has no effect here")
    assert not sweep_of(tmp_path).notes


def test_the_shipped_sweep_plans_one_run_a_trial():
    sweep = read_sweep(Path("configs/sweep/wandb.yml"))
    trials = sweep.trials(None, 0)
    assert len(trials) == 6
    words = sweep.words(trials[-1])
    mapping = load([w for w in words if "=" not in w], [w for w in words if "=" in w])
    (run,) = make_plan(one_run(mapping, "lr=0.02-d_model=96")).runs
    assert run.name == "lr=0.02-d_model=96"
    assert (run.config.train.lr, run.config.model.d_model) == (0.02, 96)
