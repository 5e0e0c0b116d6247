"""Blocks over several devices: the same numbers, states with their layers, devices of about equal bytes."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.errors import ConfigError
from lcprobe.models.mixers import MIXERS
from lcprobe.models.token_context import TokenContext
from lcprobe.probing.engines.split.layers import LayerSplit, _moved, spread
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.scoring import ModelScorer
from tests.models.contract_cases import CASES
from tests.probing.test_scoring import items_of


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(1, 8), st.integers(0, 10**6))
def test_parts_stay_in_order_and_no_device_has_more_than_its_share_and_a_part(sizes, n, before):
    at = spread(sizes, n, before)
    assert at == sorted(at)
    assert 0 <= at[0] <= at[-1] < n
    share = (before + sum(sizes)) / n
    for device in range(n):
        held = sum(size for size, place in zip(sizes, at, strict=True) if place == device)
        assert held <= share + max(sizes) + 1e-6


def test_equal_blocks_are_shared_out_equally():
    assert spread([5] * 8, 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert spread([5] * 4, 2, before=20, after=0) == [1, 1, 1, 1], "the embedding is as large as the blocks"


def devices():
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu", "cpu"]


def test_scores_are_those_of_the_whole_model(trained, tasks):
    items = items_of(tasks, "multikey", 12)
    tokenizer = tasks.materials.tokenizer
    want = ModelScorer(trained, tokenizer, "cpu", 32).score(items)
    split = LayerSplit(copy.deepcopy(trained), devices())
    assert sum(split.parts.values()) == 2
    for a, b in zip(want, ModelScorer(split, tokenizer, split.device, 32).score(items), strict=True):
        assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=2e-4)
        assert (a.exact, a.rank, a.prediction) == (b.exact, b.rank, b.prediction)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="moves vectors between a CPU and a GPU")
@pytest.mark.parametrize("case", [case for case in CASES if case.registry is MIXERS], ids=str)
def test_vectors_contexts_and_states_move_for_every_mixer(case):
    whole = case.build().float()
    pairs = [(list(range(1, n)), [3, 4, 5]) for n in (9, 30)]
    want = Continuer(whole, "cpu", 8, 100).likelihoods(pairs)
    split = LayerSplit(copy.deepcopy(whole), ["cpu", "cuda"])
    for (a, _), (b, _) in zip(want, Continuer(split, "cpu", 8, 100).likelihoods(pairs), strict=True):
        assert abs(a - b).max() < 1e-3


def test_everything_that_a_block_is_given_moves_but_its_state():
    where = TokenContext(torch.arange(3), torch.zeros(1, 3, dtype=torch.bool), 9, doc_start=torch.zeros(1))
    x, state, meta = torch.ones(1, 3, 2), object(), torch.device("meta")
    moved = _moved((x, x, where, state, torch.float32, {"v": x}), meta)
    assert (moved[0].device, moved[1].device, moved[5]["v"].device) == (meta, meta, meta)
    assert all(t.device == meta for t in (moved[2].positions, moved[2].starts, moved[2].doc_start))
    assert (moved[2].length, moved[2].consecutive, moved[3], moved[4]) == (9, True, state, torch.float32)
    assert _moved((x, None, where, None, torch.float32, {}), meta)[2] is moved[2], "once for all blocks of a device"


def test_a_context_moves_once_for_all_blocks_of_a_device(untrained):
    split = LayerSplit(copy.deepcopy(untrained), ["cpu", "cpu"])
    seen = []
    for block in split.model.blocks:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    split.hidden(torch.tensor([[1, 2, 3]]), state=split.new_state(1))
    assert len(seen) == len(split.model.blocks)
    assert len({id(where) for where in seen}) == 1
    with pytest.raises(ConfigError, match="at least one device"):
        LayerSplit(untrained, [])
