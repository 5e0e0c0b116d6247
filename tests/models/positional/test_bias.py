"""Biases over distance, in addition to their equations and peers (test_oracles): gradients, shifted and drawn
positions."""

import pytest
import torch
from lcprobe_kernels.attention import DocumentNumbers, Mask, reference
from torch.autograd import gradcheck

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.token_context import TokenContext
from tests.models.initialised import initialised
from validation.oracles.cases import equation_inputs
from validation.oracles.encodings import FORMULAS

KINDS = [
    {"type": "alibi"},
    {"type": "alibi", "learned": True},
    {"type": "t5", "n_buckets": 8, "max_distance": 11},
    {"type": "kerple"},
    {"type": "kerple", "kernel": "power"},
    {"type": "sandwich", "width": 6},
    {"type": "fire", "threshold": "train_len", "width": 3},
    {"type": "fire", "initial_threshold": 6.5, "width": 3},
]
NAMES = [" ".join(str(v) for v in kind.values()) for kind in KINDS]


def encoding_of(mapping, n_heads=4, dtype=torch.float64, seed=0, length: int | None = 16):
    choice = choose(POSITIONAL, mapping, "x")
    return initialised(choice.create(HeadShape(n_heads, n_heads, 4, 8, length)).to(dtype), seed)


def qkv(seqlen, n_heads=4, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(2, seqlen, n_heads, 4, generator=g, dtype=dtype) for _ in range(3)]


def run(encoding, q, k, v, **where):
    positions = where.pop("positions", torch.arange(q.shape[1]))
    at = TokenContext(positions, **where)
    return encoding.attend(q, Keys(k, v, positions, at, consecutive=at.consecutive), return_lse=True)


def at_drawn_positions(kind, e, q, k, v):
    """Outputs at positions with gaps, and those of the equation."""
    at = torch.tensor([0, 1, 4, 5, 6, 9, 12, 13, 20, 21, 22, 40])
    got = run(e, q, k, v, positions=at, consecutive=False)[0]
    return got, FORMULAS[kind["type"]](equation_inputs(e, [q, k, v, q.flatten(2)], at))


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if encoding_of(k).no_decay], ids=lambda k: " ".join(map(str, k.values()))
)
def test_gradients_of_learned_terms(kind):
    e = encoding_of(kind, n_heads=2)
    names = e.no_decay
    q, k, v = qkv(9, n_heads=2)

    def output(*values):
        outputs = torch.func.functional_call(e, dict(zip(names, values, strict=True)), (q, k, v))
        return outputs[0]

    e.forward = lambda q, k, v: run(e, q, k, v)
    assert gradcheck(output, [p.detach().clone().requires_grad_() for p in e.parameters()])


@pytest.mark.parametrize("kind", [k for k in KINDS if k["type"] != "fire"], ids=[n for n in NAMES if "fire" not in n])
def test_outputs_depend_on_differences_of_positions_only(kind):
    e, (q, k, v) = encoding_of(kind), qkv(12)
    assert e.relative
    plain = run(e, q, k, v)
    shifted = run(e, q, k, v, positions=torch.arange(12) + (1 << 20))
    assert torch.equal(plain[0], shifted[0])
    by_blocks = run(e, q, k, v, positions=torch.arange(12) + 5, consecutive=False)
    for a, b in zip(plain, by_blocks, strict=True):
        assert (a - b).abs().max() < 1e-13
    got, want = at_drawn_positions(kind, e, q, k, v)
    assert (got - want).abs().max() < 1e-13


def test_fire_is_a_table_up_to_its_threshold_and_per_query_beyond():
    kind = {"type": "fire", "initial_threshold": 11.0, "width": 3}
    e, (q, k, v) = encoding_of(kind), qkv(12)
    table = reference(q, k, v, table=e.bias(torch.arange(12)), mask=Mask(), scale=0.5)
    assert (run(e, q, k, v)[0] - table[0]).abs().max() < 1e-13
    with torch.no_grad():
        e.threshold_factor.fill_(-0.5)  # L = 5.5: the last queries leave the table, the first do not
    lower = run(e, q, k, v)[0]
    table = reference(q, k, v, table=e.bias(torch.arange(12)), mask=Mask(), scale=0.5)
    assert (lower[:, :6] - table[0][:, :6]).abs().max() < 1e-13
    assert (lower[:, 6:] - table[0][:, 6:]).abs().amax((0, 2, 3)).min() > 1e-6


def test_fire_counts_from_the_start_of_a_document_and_uses_drawn_positions():
    e, (q, k, v) = encoding_of({"type": "fire", "initial_threshold": 3.5, "width": 3}), qkv(12)
    starts = torch.zeros(2, 12, dtype=torch.bool)
    starts[0, 5] = True
    at = TokenContext(torch.arange(12), starts)
    numbers = starts.cumsum(1)
    packed = e.attend(q, Keys(k, v, at.positions, at, documents=DocumentNumbers(numbers, numbers)))[0]
    alone = run(e, q[:, 5:], k[:, 5:], v[:, 5:])[0]
    assert (packed[0, 5:] - alone[0]).abs().max() < 1e-13
    assert (packed[1] - run(e, q, k, v)[0][1]).abs().max() < 1e-13
    got, want = at_drawn_positions(KINDS[-1], e, q, k, v)
    assert (got - want).abs().max() < 1e-13


def test_fire_with_a_fixed_threshold_needs_a_training_length():
    with pytest.raises(ConfigError, match="threshold: given 'train_len'"):
        encoding_of({"type": "fire", "threshold": "train_len"}, length=None)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_biases_stay_float32_in_a_bfloat16_model(kind):
    e, low = encoding_of(kind), encoding_of(kind, dtype=torch.bfloat16)
    with torch.no_grad():
        for p in e.parameters():
            p.copy_(p.bfloat16())
        d = torch.tensor([0, 1, 1000, 131_071])
        with torch.autocast("cpu", torch.bfloat16):
            given = low.bias(d)
        exact = e.bias(d)
    assert given.dtype in (torch.float32, torch.float64)
    assert ((given - exact).abs() / (1 + exact.abs())).max() < 1e-5


def test_initial_rates_of_kerple_are_in_the_ranges_of_the_release():
    for kernel, tops in (("log", (2, 1)), ("power", (1, 2))):
        e = encoding_of({"type": "kerple", "kernel": kernel}, n_heads=400)
        for rate, top in zip(e.rates(), tops, strict=True):
            assert 0.0099 <= rate.min()
            assert 0.9 * top < rate.max() <= top
