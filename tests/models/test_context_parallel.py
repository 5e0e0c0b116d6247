"""Sequences divided over two ranks: outputs, loss and gradients are those of one process, whatever the mixer."""

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.models.state import tensors_of
from lcprobe.training.initial_state import after
from tests.models.contract_cases import CASES
from tests.toys import registered
from validation.context_parallel.compare import batch, each_apart
from validation.context_parallel.processes import in_ranks
from validation.invariances.ours import built


def cases(every: bool) -> list:
    """(name, settings): all contract cases, or the smallest of each mixer and encoding."""
    chosen = {}
    for case in CASES:
        if every or case.registry in (MIXERS, POSITIONAL):
            chosen[str(case) if every else (case.registry is MIXERS, case.name)] = (str(case), case.settings)
    return list(chosen.values())


def work(
    ranks: ContextRanks, given: list, recompute: bool, packed: tuple[bool, ...] = (False, True), **more: object
) -> list:
    with registered():
        return each_apart(ranks, given, torch.float64, recompute, packed, **more)


def begun(ranks: ContextRanks, given: list, recompute: bool, packed: tuple[bool, ...] = (False, True)) -> list:
    """`work` from a state that is not empty."""
    return work(ranks, given, recompute, packed, initial=True)


def compiled(ranks: ContextRanks, given: list, recompute: bool) -> list:
    """`work` with compiled blocks."""
    return work(ranks, given, recompute, (True,), backend="aot_eager")


def read_in_parts(ranks: ContextRanks, given: list) -> list:
    """By how much a state after packed documents, of which each rank reads a part, differs from the whole's."""
    found = []
    for name, settings in given:
        with registered():
            model = built(settings)
        tokens, _, starts = batch(True, 21)
        packed = {"starts": starts, "starts_on_host": starts}
        with torch.no_grad():
            states = [
                after(model, tokens, *packed.values(), model.new_state(len(tokens)), divided)
                for divided in (None, ranks)
            ]
        pairs = zip(*(tensors_of((state.layers, state.mlps)) for state in states), strict=True)
        found.append((name, max((float((a - b).abs().max()) for a, b in pairs if a.numel()), default=0.0)))
    return found


def check(found: list, number: int) -> None:
    assert len(found) == number
    assert {name: one for name, documents, one in found if not one.worst <= 1e-9} == {}


def test_two_ranks_equal_one_process():
    """The last settings of every mixer and encoding; packed documents cross the border of the chunks."""
    given = cases(every=False)
    found = in_ranks(2, work, given, False, (True,))
    check(found, len(given))
    idle = [name for name, _, one in found if not sum(one.sent.values()) and "'window': 1}" not in name]
    assert not idle, "all others need something of the chunk before"


def test_a_state_of_which_each_rank_reads_a_part_is_the_whole_one():
    """Of every mixer, with packed documents that cross the parts, of 21 tokens."""
    given = recurrent()
    found = in_ranks(2, read_in_parts, given)
    assert len(found) == len(given)
    assert {name: apart for name, apart in found if not apart <= 1e-12} == {}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "recompute"), [(2, False), (4, False), (4, True)])
def test_all_settings_over_ranks_equal_one_process(size, recompute):
    given = cases(every=True)
    check(in_ranks(size, work, given, recompute), 2 * len(given))


def recurrent() -> list:
    """(name, settings): the last settings of every mixer with a recurrent state, and blocks of several."""
    found = {case.name: case for case in CASES if case.registry is MIXERS and case.name != "attention"}
    return [(str(case), case.settings) for case in [*found.values(), *(c for c in CASES if c.name == "blocks")]]


def test_an_initial_state_is_that_of_the_first_rank():
    """Of mixers that exchange and that pass on, and of attention and MLPs beside them."""
    given = [(name, settings) for name, settings in recurrent() if name.startswith(("mamba2", "rwkv7", "blocks"))]
    assert len(given) >= 3
    check(in_ranks(2, begun, given, False, (True,)), len(given))


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_equal_one_process(recompute):
    """State passing, exchange and both in parallel."""
    given = [(str(case), case.settings) for case in CASES if case.name == "blocks"]
    check(in_ranks(2, compiled, given, recompute), len(given))


@pytest.mark.slow
def test_compiled_blocks_and_initial_states_over_more_ranks():
    given = recurrent()
    check(in_ranks(4, begun, given, True), 2 * len(given))
    for recompute in (False, True):
        check(in_ranks(3, compiled, given, recompute), len(given))


def test_blocks_that_are_computed_again_need_no_other_rank_out_of_turn():
    """State passing, exchange and both in parallel, with `recompute`."""
    given = [(str(case), case.settings) for case in CASES if case.name == "blocks"]
    check(in_ranks(3, work, given, True, (True,)), len(given))


def test_a_length_that_ranks_do_not_divide_is_one_line():
    with pytest.raises(ConfigError, match=r"^length: given 10; allowed: a multiple of the 4 ranks of a sequence$"):
        ContextRanks(None, 0, 4).span(10)
