"""What every mixer, encoding and temperature promises, for all that is registered and for the toys: chunks through
the state equal the whole, forked states and packed documents are independent, outputs are causal, and `cost` is
exact."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.models.mixers import MIXERS
from lcprobe.models.parts import model_cost
from tests.models.contract_cases import CASES, SEQLEN, VOCAB

MIXER_CASES = [case for case in CASES if case.registry is MIXERS and not case.has_sinks]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def tokens_of(seed, batch=3):
    return torch.randint(0, VOCAB, (batch, SEQLEN), generator=torch.Generator().manual_seed(seed))


@every_case
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, SEQLEN - 1), max_size=6), seed=st.integers(0, 999), documents=st.booleans())
def test_any_chunking_equals_the_whole(case, cuts, seed, documents):
    model, tokens = case.model, tokens_of(seed)
    starts = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 0.1 if documents else None
    with torch.no_grad():
        whole, none = model.hidden(tokens, starts=starts)
        assert none is None
        state, parts, edges = model.new_state(3), [], [0, *sorted(set(cuts)), SEQLEN]
        for lo, hi in zip(edges, edges[1:], strict=False):
            own_starts = None if starts is None or not starts[:, lo:hi].any() else starts[:, lo:hi]
            part, state = model.hidden(tokens[:, lo:hi], starts=own_starts, state=state)
            parts.append(part)
    assert state.position == SEQLEN
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-9


@every_case
def test_one_token_at_a_time_equals_the_whole(case):
    model, tokens = case.model, tokens_of(5)
    with torch.no_grad():
        whole, _ = model.hidden(tokens)
        state = model.new_state(3)
        for t in range(SEQLEN):
            one, state = model.hidden(tokens[:, t : t + 1], state=state)
            assert (one[:, 0] - whole[:, t]).abs().max() <= 1e-9, t


@every_case
def test_forked_states_continue_like_their_parents(case):
    model, tokens = case.model, tokens_of(2, batch=2)
    with torch.no_grad():
        _, state = model.hidden(tokens, state=model.new_state(2))
        more = torch.randint(0, VOCAB, (6, 5))
        forked, _ = model.hidden(more, state=state.fork(3))
        for row in range(6):
            alone, _ = model.hidden(more[row : row + 1], state=state.rows(torch.tensor([row // 3])))
            assert (forked[row] - alone[0]).abs().max() <= 1e-10
    assert state.fork(3).nbytes == 3 * state.nbytes
    for own in state.layers:
        assert dataclasses.is_dataclass(own)
        assert own.to("cpu") is not own


@pytest.mark.parametrize("case", [case for case in CASES if not case.has_sinks], ids=str)
def test_packed_documents_equal_separate_ones(case):
    """Sinks are left out: they are the row's first tokens, not each document's."""
    model, tokens = case.model, tokens_of(3, batch=1)
    edges = [0, 1, 9, 30, SEQLEN]
    starts = torch.zeros(1, SEQLEN, dtype=torch.bool)
    starts[0, edges[1:-1]] = True
    with torch.no_grad():
        packed, _ = model.hidden(tokens, starts=starts)
        for lo, hi in zip(edges, edges[1:], strict=False):
            alone, _ = model.hidden(tokens[:, lo:hi])
            assert (packed[:, lo:hi] - alone).abs().max() <= 1e-9


@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_gradients_of_packed_documents_are_those_of_separate_ones(case):
    model, tokens, edges = case.build(), tokens_of(7, batch=1), [0, 1, 9, 30, SEQLEN]
    weights = torch.randn(SEQLEN, model.config.d_model, generator=torch.Generator().manual_seed(7)).double()
    starts = torch.zeros(1, SEQLEN, dtype=torch.bool)
    starts[0, edges[1:-1]] = True
    used = [p for name, p in model.named_parameters() if name != "head.weight"]
    packed = torch.autograd.grad((model.hidden(tokens, starts=starts)[0] * weights).sum(), used)
    parts = zip(edges, edges[1:], strict=False)
    alone = sum((model.hidden(tokens[:, lo:hi])[0] * weights[lo:hi]).sum() for lo, hi in parts)
    for one, other in zip(packed, torch.autograd.grad(alone, used), strict=True):
        assert (one - other).abs().max() <= 1e-9 * other.abs().max().clamp_min(1.0)


@pytest.mark.parametrize("case", MIXER_CASES, ids=str)
def test_rows_padded_in_front_read_and_continue_like_rows_alone(case):
    """Rows of different lengths in one batch: each begins where its padding ends, and is its own document."""
    model, tokens, paddings = case.model, tokens_of(8, batch=4), (0, 1, 17, SEQLEN - 6)
    starts = torch.zeros(4, SEQLEN, dtype=torch.bool)
    starts[range(4), paddings] = True
    with torch.no_grad():
        batch, state = model.hidden(tokens[:, :-5], starts=starts[:, :-5], state=model.new_state(4))
        after, _ = model.hidden(tokens[:, -5:], state=state)
        for row, padding in enumerate(paddings):
            alone, _ = model.hidden(tokens[row : row + 1, padding:])
            read = torch.cat([batch, after], 1)[row, padding:]
            assert (read - alone[0]).abs().max() <= 1e-9, padding


@every_case
def test_changing_a_token_leaves_everything_before_it_bit_equal(case):
    tokens = tokens_of(4)
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
        _, state = model.hidden(tokens_of(0, batch=1), state=model.new_state(1))
    assert state.nbytes == cost.blocks.state_bytes + cost.blocks.kv_bytes


@every_case
def test_every_parameter_gets_a_gradient(case):
    model, tokens = case.build(), tokens_of(6)
    loss, rows, index = model.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))
    loss.backward()
    assert rows.shape == index.shape == (3 * (SEQLEN - 1),)
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert without == []
