"""Every registered mixer: any chunking through the state equals the whole, forks and packed documents are independent, the
future is invisible, and `cost` counts what is built. A new mixer is picked up from the registry."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.choices import choose
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.parts import model_cost
from lcprobe.schema import build

# settings that reach every branch of a mixer; a new mixer without an entry is tested as it comes
VARIANTS = {
    "attention": [
        {"head_dim": 8},
        {"head_dim": 8, "d_conv": 4},
        {"head_dim": 8, "n_heads": 4, "n_kv_heads": 2, "window": 7, "d_conv": 3, "bias": True},
        {"head_dim": 8, "n_heads": 3, "positional": {"type": "none"}},
        {"head_dim": 8, "window": 1, "positional": {"type": "rope", "fraction": 0.5}},
        {"head_dim": 8, "window": 5, "sinks": 2, "temperature": {"type": "ssmax"}, "sink_logit": True},
        {"head_dim": 8, "temperature": {"type": "logn", "length": 4}, "sink_logit": True},
        {"head_dim": 8, "positional": {"type": "prope", "fraction": 0.5}},
        {"head_dim": 8, "positional": {"type": "hope", "length": 20}},
        {"head_dim": 8, "positional": {"type": "xpos"}, "window": 6},
        {"head_dim": 8, "n_heads": 4, "n_kv_heads": 2, "positional": {"type": "pope"}},
        {"head_dim": 8, "n_heads": 4, "n_kv_heads": 2, "positional": {"type": "selective_rope"}, "window": 4},
        # biases and gates
        {"head_dim": 4, "positional": {"type": "alibi"}},
        {"head_dim": 8, "n_heads": 4, "n_kv_heads": 2, "window": 7, "positional": {"type": "alibi", "learned": True}},
        {"head_dim": 8, "positional": {"type": "t5", "n_buckets": 8, "max_distance": 20}, "sink_logit": True},
        {"head_dim": 8, "positional": {"type": "kerple"}},
        {"head_dim": 8, "positional": {"type": "kerple", "kernel": "power"}},
        {"head_dim": 8, "positional": {"type": "sandwich", "width": 6}},
        {"head_dim": 8, "context_length": 64, "positional": {"type": "fire", "threshold": "train_len", "width": 5}},
        {"head_dim": 8, "window": 30, "positional": {"type": "fire", "initial_threshold": 9.5, "width": 5}},
        {"head_dim": 8, "positional": {"type": "fox"}},
        {
            "head_dim": 8,
            "n_heads": 4,
            "n_kv_heads": 2,
            "window": 7,
            "positional": {"type": "fox", "initial_bias": 2.0},
        },
        {"head_dim": 8, "window": 2, "positional": {"type": "fox"}},
        {"head_dim": 8, "window": 5, "sinks": 2, "positional": {"type": "cable"}},
        {"head_dim": 8, "positional": {"type": "cope", "max_position": 6}, "sink_logit": True},
        {
            "head_dim": 8,
            "n_heads": 4,
            "n_kv_heads": 2,
            "window": 7,
            "positional": {"type": "cope", "max_position": 3},
        },
        {"head_dim": 8, "positional": {"type": "stick_breaking"}},
        {
            "head_dim": 8,
            "window": 7,
            "positional": {"type": "stick_breaking", "attend_current": True, "remainder": True},
        },
        {"head_dim": 8, "positional": {"type": "path", "rank": 3}},
        {
            "head_dim": 8,
            "n_heads": 4,
            "n_kv_heads": 2,
            "window": 7,
            "positional": {"type": "path", "rank": 3, "d_conv": 4},
        },
        {"head_dim": 8, "positional": {"type": "dape", "width": 5}},
        {"head_dim": 8, "window": 7, "positional": {"type": "dape", "base": "alibi", "width": 5}},
        {"head_dim": 8, "positional": {"type": "tape"}, "sink_logit": True},
        {
            "head_dim": 8,
            "n_heads": 4,
            "n_kv_heads": 2,
            "window": 7,
            "positional": {"type": "tape", "fraction": 0.5, "width": 3},
        },
        {
            "head_dim": 8,
            "window": 5,
            "sinks": 2,
            "positional": {"type": "tape", "width": 3},
            "temperature": {"type": "ssmax"},
        },
    ],
    "mamba2": [
        {"head_dim": 8, "d_state": 6, "chunk_size": 8},
        {"head_dim": 4, "d_state": 3, "n_groups": 2, "chunk_size": 5, "d_conv": 2, "bias": True, "conv_bias": False},
        {"head_dim": 8, "d_state": 4, "dt_limit": [0.01, 0.2], "expand": 1},
    ],
}
CASES = [(name, settings) for name in MIXERS for settings in VARIANTS.get(name, [{}])]
D_MODEL, VOCAB, SEQLEN = 16, 50, 41


def model_of(name, mixer, mlp=True):
    config = {
        "layout": f"{name}{'+mlp' if mlp else ''} x 2",
        "mixers": {name: mixer},
        "d_model": D_MODEL,
        "d_ff": 24,
        "vocab_size": VOCAB,
        "initializer_range": 0.5,
    }
    model = LanguageModel(build(ModelConfig, config, "model")).initialise(1)
    with torch.no_grad():  # what starts at zero takes part
        for i, p in enumerate(model.parameters()):
            if not p.any():
                p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model.double().eval()


def tokens_of(seed, batch=3):
    return torch.randint(0, VOCAB, (batch, SEQLEN), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "mixer"), CASES)
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, SEQLEN - 1), max_size=6), seed=st.integers(0, 999), documents=st.booleans())
def test_any_chunking_equals_the_whole(name, mixer, cuts, seed, documents):
    model, tokens = model_of(name, mixer), tokens_of(seed)
    starts = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 0.1 if documents else None
    with torch.no_grad():
        whole, none = model.hidden(tokens, starts=starts)
        assert none is None
        state, parts, edges = model.new_state(3), [], [0, *sorted(set(cuts)), SEQLEN]
        for lo, hi in zip(edges, edges[1:], strict=False):
            part, state = model.hidden(
                tokens[:, lo:hi], starts=None if starts is None else starts[:, lo:hi], state=state
            )
            parts.append(part)
    assert state.position == SEQLEN
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-9


@pytest.mark.parametrize(("name", "mixer"), CASES)
def test_one_token_at_a_time_equals_the_whole(name, mixer):
    model, tokens = model_of(name, mixer), tokens_of(5)
    with torch.no_grad():
        whole, _ = model.hidden(tokens)
        state = model.new_state(3)
        for t in range(SEQLEN):
            one, state = model.hidden(tokens[:, t : t + 1], state=state)
            assert (one[:, 0] - whole[:, t]).abs().max() <= 1e-9, t


@pytest.mark.parametrize(("name", "mixer"), CASES)
def test_forked_states_go_on_as_their_parents(name, mixer):
    model, tokens = model_of(name, mixer), tokens_of(2, batch=2)
    with torch.no_grad():
        _, state = model.hidden(tokens, state=model.new_state(2))
        more = torch.randint(0, VOCAB, (6, 5))
        forked, _ = model.hidden(more, state=state.fork(3))
        for row in range(6):
            alone, _ = model.hidden(more[row : row + 1], state=state.rows(torch.tensor([row // 3])))
            assert (forked[row] - alone[0]).abs().max() <= 1e-10
    assert state.fork(3).nbytes == 3 * state.nbytes


@pytest.mark.parametrize(("name", "mixer"), CASES)
def test_packed_documents_equal_separate_ones(name, mixer):
    mixer = {k: v for k, v in mixer.items() if k != "sinks"}  # sinks are the row's first tokens, not each document's
    model, tokens = model_of(name, mixer), tokens_of(3, batch=1)
    edges = [0, 1, 9, 30, SEQLEN]
    starts = torch.zeros(1, SEQLEN, dtype=torch.bool)
    starts[0, edges[1:-1]] = True
    with torch.no_grad():
        packed, _ = model.hidden(tokens, starts=starts)
        for lo, hi in zip(edges, edges[1:], strict=False):
            # positions go on in a packed row; encodings of relative position give the same
            alone, _ = model.hidden(tokens[:, lo:hi])
            assert (packed[:, lo:hi] - alone).abs().max() <= 1e-9


@pytest.mark.parametrize(("name", "mixer"), CASES)
def test_changing_a_token_leaves_everything_before_it_bit_equal(name, mixer):
    model, tokens = model_of(name, mixer), tokens_of(4)
    with torch.no_grad():
        before, _ = model.hidden(tokens)
        tokens[:, 20] = (tokens[:, 20] + 1) % VOCAB
        after, _ = model.hidden(tokens)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize(("name", "mixer"), CASES)
@pytest.mark.parametrize("mlp", [True, False])
def test_cost_counts_what_is_built(name, mixer, mlp):
    model = model_of(name, mixer, mlp)
    cost = model_cost(model.config, SEQLEN)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert cost.embedding == model.embedding.weight.numel()
    with torch.no_grad():
        _, state = model.float().hidden(tokens_of(0, batch=1), state=model.new_state(1))
    assert state.nbytes == cost.blocks.state_bytes + cost.blocks.kv_bytes


@pytest.mark.parametrize(("name", "mixer"), CASES)
def test_every_parameter_gets_a_gradient(name, mixer):
    model, tokens = model_of(name, mixer), tokens_of(6)
    loss, rows, index = model.loss(tokens, torch.ones(tokens.shape, dtype=torch.float64))
    loss.backward()
    assert rows.shape == index.shape == (3 * (SEQLEN - 1),)
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_states_are_plain_values():
    for name, mixer in CASES:
        choice = choose(MIXERS, {"type": name, **mixer}, "x")
        state = choice.create(D_MODEL).new_state(2)
        assert dataclasses.is_dataclass(state)
        assert state.to("cpu").detach() is not state
