"""Memory of a device under each strategy, as `--plan` says it, against what the division of the model holds."""

import pytest

from lcprobe.config import load
from lcprobe.errors import ConfigError
from lcprobe.studies.planning.costs import matching_table
from lcprobe.studies.planning.plan import make_plan
from tests.tiny import write_config

WIDE = {"d_model": 1024, "vocab_size": 4096, "mixers": {"mamba2": {"head_dim": 64, "d_state": 16}}}
GRID = {"arch": {"mamba2": {"model": {"layout": "mamba2 x 24"}}}}
SETTINGS = {"context_length": 64, "tokens": 64 * 8 * 4, "batch_tokens": 64 * 8}


def test_strategies_divide_weights_gradients_and_moments(data_settings, tmp_path):
    config = write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model=WIDE, train=SETTINGS)

    def row(*changes):
        (row,) = matching_table(make_plan(load([str(config)], ["train.devices=8", *changes])))
        return row

    memory = {
        name: row(*changes)["memory GB (est.)"]
        for name, changes in {
            "ddp": ["train.strategy=ddp"],
            "fsdp2": ["train.strategy=fsdp2"],
            "tp": ["train.tensor_parallel=4"],
            "both": ["train.strategy=fsdp2", "train.tensor_parallel=2"],
        }.items()
    }
    whole = 16 * row()["parameters"] / 1e9
    assert memory["ddp"] >= whole
    assert whole / 8 < memory["fsdp2"] < whole / 2
    assert whole / 4 < memory["tp"] < whole / 2
    assert memory["both"] < 1.05 * memory["fsdp2"], "some of what a layer keeps is not divided by tp"


def test_heads_that_do_not_divide_are_one_line_in_the_plan(data_settings, tmp_path):
    config = write_config(tmp_path, data_settings, grid=GRID, match={"budget": None}, model=WIDE, train=SETTINGS)
    changes = ["train.devices=5", "train.tensor_parallel=5"]
    with pytest.raises(
        ConfigError, match=r"tensor_parallel: given 5; allowed: a divisor of n_heads of mamba2 \(32\)"
    ):
        make_plan(load([str(config)], changes))


def test_layers_that_cannot_be_shared_are_whole_in_each_process(data_settings, tmp_path):
    """A mixer without `tensor_splits` was counted as divided: its weights and moments alone take all that is here."""
    arch = {name: {"model": {"layout": f"{name} x 12"}} for name in ("gla+mlp", "attention+mlp")}
    mixers = {"gla": {"head_dim": 64}, "attention": {"head_dim": 64}}
    model = {"d_model": 1024, "d_ff": 1024, "vocab_size": 4096, "mixers": mixers}
    config = write_config(
        tmp_path, data_settings, grid={"arch": arch}, match={"budget": None}, model=model, train=SETTINGS
    )
    plan = make_plan(load([str(config)], ["train.devices=4", "train.tensor_parallel=4"]))
    for run, row in zip(plan.runs, matching_table(plan), strict=True):
        of_mlps = 12 * 3 * 1024 * 1024
        shared = run.matched.cost.blocks.params if "attention" in run.name else of_mlps
        own = row["parameters"] - 3 / 4 * shared
        assert 16 * own / 1e9 - 0.01 < row["memory GB (est.)"] < 20 * own / 1e9 + 0.1
