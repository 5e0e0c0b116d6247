"""What every mixer, encoding and temperature promises, for all that is registered and for the toys: chunks through
the state equal the whole, forked states and packed documents are independent, outputs are causal, and `cost` is
exact."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError

from lcprobe.choices import choose
from lcprobe.models.mixers import MIXERS
from lcprobe.models.parts import model_cost
from lcprobe.models.token_context import TokenContext
from tests.models.contract_cases import CASES, WIDE
from validation.invariances.checks import (
    MORE,
    SEQLEN,
    VOCAB,
    chunked,
    fork_and_rows,
    packed_documents,
    packed_gradients,
    padded_batch,
    random_tokens,
)
from validation.invariances.ours import Ours
from validation.oracles.mixers import REQUIRED

MIXER_CASES = [case for case in CASES if case.registry is MIXERS and not case.has_sinks]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
@settings(max_examples=3, deadline=None)
@given(
    cuts=st.lists(st.integers(1, SEQLEN - 1), min_size=1, max_size=6),
    seed=st.integers(0, 999),
    documents=st.booleans(),
)
def test_any_chunking_equals_the_whole(case, cuts, seed, documents):
    tokens = random_tokens(seed, 3)
    starts = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 0.1 if documents else None
    assert chunked(case.subject, tokens, [0, *sorted(set(cuts)), SEQLEN], starts) <= 1e-9


@every_case
def test_one_token_at_a_time_equals_the_whole(case):
    """From the first token on, and beyond the training length after a piece; `validation invariances` takes all alone."""
    edges = [*range(8), *range(SEQLEN - 13, SEQLEN + 1)]
    assert chunked(case.subject, random_tokens(5, 3), edges) <= 1e-9


@every_case
def test_forked_states_and_rows_continue_like_their_sequences(case):
    assert fork_and_rows(case.subject, at_once=MORE) <= 1e-9


@every_case
def test_states_are_returned_where_one_is_passed_in(case):
    model, tokens = case.model, random_tokens(2, 2)
    with torch.no_grad():
        assert model.hidden(tokens)[1] is None
        _, state = model.hidden(tokens, state=model.new_state(2))
    assert state.position == SEQLEN
    assert state.fork(3).nbytes == 3 * state.nbytes
    for own in state.layers:
        assert dataclasses.is_dataclass(own)
        assert own.to("cpu") is not own


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("with_state", [False, True])
def test_no_tokens_are_refused_in_one_line(name, with_state):
    mixer = choose(MIXERS, {"type": name, **REQUIRED.get(name, {})}, "mixer").create(WIDE)
    state = mixer.new_state(2) if with_state else None
    with pytest.raises(ArgumentError, match=r"^[^\n]*: given torch\.float32 of shape \(2, 0, [^\n]*$"):
        mixer(torch.zeros(2, 0, WIDE), TokenContext(torch.arange(0)), state)


@pytest.mark.parametrize("case", [case for case in CASES if not case.has_sinks], ids=str)
def test_packed_documents_equal_separate_ones(case):
    """Sinks are left out: they are the row's first tokens, not each document's."""
    assert packed_documents(case.subject) <= 1e-9


@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_gradients_of_packed_documents_are_those_of_separate_ones(case):
    assert packed_gradients(Ours(case.build())) <= 1e-9


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_rows_of_a_padded_batch_read_and_continue_like_rows_alone(case, side):
    """Left: each begins where its padding ends, and is its own document. Right: the probe engine takes a row's state
    where it ends."""
    assert padded_batch(case.subject, side) <= 1e-9


@every_case
def test_changing_a_token_leaves_everything_before_it_bit_equal(case):
    tokens = random_tokens(4, 3)
    with torch.no_grad():
        before, _ = case.model.hidden(tokens)
        tokens[:, 20] = (tokens[:, 20] + 1) % VOCAB
        after, _ = case.model.hidden(tokens)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@every_case
def test_cost_counts_what_is_built(case):
    model = case.build().float()
    cost = model_cost(model.config, SEQLEN)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert cost.embedding == model.embedding.weight.numel() * (1 if model.config.tie_embeddings else 2)
    with torch.no_grad():
        _, state = model.hidden(random_tokens(0, 1), state=model.new_state(1))
    assert state.nbytes == cost.blocks.state_bytes + cost.blocks.kv_bytes


@every_case
def test_every_parameter_gets_a_gradient(case):
    model, tokens = case.build(), random_tokens(6, 3)
    loss, rows, index = model.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))
    loss.backward()
    assert rows.shape == index.shape == (3 * (SEQLEN - 1),)
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert without == []
