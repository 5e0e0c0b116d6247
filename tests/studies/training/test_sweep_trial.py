"""A trial that an agent of W&B has started is one run with the agent's name."""

import pytest

from lcprobe.errors import ConfigError
from lcprobe.studies.training.sweep_trial import in_sweep


def test_a_trial_of_an_agent_is_one_run_with_its_name(monkeypatch):
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    monkeypatch.setenv("WANDB_RUN_ID", "q1w2e3r4")
    mapping = {"grid": {"seed": [0, 1]}}
    assert in_sweep(mapping) == mapping, "a run's id alone is no sweep"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert in_sweep({"study": {"name": "s"}})["study"] == {"name": "s", "run": "q1w2e3r4"}
    with pytest.raises(ConfigError, match="a trial is one run"):
        in_sweep(mapping)
