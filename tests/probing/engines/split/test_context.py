"""Caches divided over two processes give what one process computes, for prompts, decoding and shared prefixes."""

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.probing.engines.split.context import ContextSplit
from validation.context_parallel.processes import in_ranks
from validation.context_parallel.split import split_rows
from validation.context_parallel.table import subjects
from validation.invariances.ours import built

PARTS = (
    "alibi",
    "fox",
    "tape",
    "rope",
    "configs/model/hybrid-1to7",
    "parallel(",
    "rwkv7 head",
    "rg_lru n_blocks=4",
    "mlstm head_dim=6",
)


def test_divided_caches_equal_one_cache():
    chosen = [(name, settings) for name, settings in subjects() if any(part in name for part in PARTS)]
    rows = {row["model"]: row for row in in_ranks(2, split_rows, chosen)}
    assert len(rows) == len(chosen)
    apart = {name: (row["hidden"], row["log-likelihoods"]) for name, row in rows.items()}
    # log-likelihoods are kept in float32
    assert {name: both for name, both in apart.items() if not (both[0] <= 1e-12 and both[1] <= 1e-6)} == {}
    full = rows["attention, tape"]
    assert full["bytes of a rank"] <= 0.6 * full["bytes of one process"]


@pytest.mark.parametrize("name", ["cope", "path", "stick_breaking"])
def test_attention_that_cannot_be_merged_is_refused_in_one_line(name):
    model = built(dict(subjects())[f"attention, {name}"])
    with pytest.raises(ConfigError, match=r"^model.positional: given '\w+'; allowed: one whose attention over parts"):
        ContextSplit(model, ContextRanks(None, 0, 2))


def test_all_hold_a_window():
    """The few keys of a window are not worth a message."""
    model = built(dict(subjects())["attention, rope, window 9"])
    split = ContextSplit(model, ContextRanks(None, 0, 2))
    hidden, state = split.hidden(torch.arange(2, 17)[None], state=split.new_state(1))
    assert torch.equal(hidden, model.hidden(torch.arange(2, 17)[None])[0])
    assert all(layer.cache.k.shape[1] == 8 for layer in state.layers)
