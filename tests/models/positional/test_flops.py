"""The FLOPs that an encoding reports against those that torch counts while it runs on the attention op's
reference."""

import pytest
import torch
from lcprobe_kernels.attention.reference import reference
from torch.utils.flop_counter import FlopCounterMode

from lcprobe.choices import choose
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import model_cost
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape, Keys
from lcprobe.models.positional.path import KEYS_PER_CHUNK
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build

SHAPE, N = HeadShape(4, 2, 16, 64, 32), 3 * KEYS_PER_CHUNK
BY_PAIR = {"cope": 9 * SHAPE.n_heads, "stick_breaking": 4 * SHAPE.n_heads, "fire": 2 * 32}
"""Operations per query-key pair that are not matrix products."""
LAYERS = sorted(name for name in POSITIONAL if choose(POSITIONAL, name, "x").cls.family != "absolute")


def counted(name, **settings):
    """FLOPs of matrix products in addition to those of q . k and weights . v over all pairs (no CPU path skips masked
    ones)."""
    choice = choose(POSITIONAL, {"type": name, **settings}, "x")
    encoding = choice.create(SHAPE).double()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in encoding.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.1)
        q, k, v = (torch.randn(1, N, heads, 16, generator=g, dtype=torch.float64) for heads in (4, 2, 2))
        x, where = torch.randn(1, N, 64, generator=g, dtype=torch.float64), TokenContext(torch.arange(N))
        with FlopCounterMode(display=False) as counter:
            terms = (
                encoding.token_terms(x, where, None)
                if encoding.carry_name is None
                else encoding.read_carry(x, where, None)
            )
            if not encoding.caches_raw_keys:
                q, k = encoding.on_qk(q, k, where, terms)
            encoding.attend(q, Keys(k, v, where.positions, where, terms), op=reference)
    return choice, counter.get_total_flops() - 4 * N * N * 4 * 16


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "path"])
def test_flops_are_those_that_torch_counts(name):
    choice, products = counted(name, **({"initial_threshold": 16.0} if name == "fire" else {}))
    claimed = N * choice.cls.flops(choice.config, SHAPE, N, N)
    assert claimed - N * N * BY_PAIR.get(name, 0) == products


def test_flops_of_path_count_causal_chunks():
    choice, products = counted("path")
    visible, heads, d = (N + 1) / 2, 4, 16
    solve = SHAPE.n_kv_heads * KEYS_PER_CHUNK * (KEYS_PER_CHUNK + d)  # which torch does not count
    causal = N * N * 2 * heads * d - N * visible * 2 * heads * d  # half of q . k is not computed
    claimed = N * (choice.cls.flops(choice.config, SHAPE, visible, N) - solve)
    assert claimed == pytest.approx(products + causal, rel=0.2)


def test_fire_costs_nothing_up_to_its_threshold():
    choice = choose(POSITIONAL, {"type": "fire", "initial_threshold": 64.0}, "x")
    assert choice.cls.flops(choice.config, SHAPE, 32.5, 64) == 0
    assert choice.cls.flops(choice.config, SHAPE, 33.0, 65) > 0


@pytest.mark.parametrize("window", [None, 16])
def test_the_cost_of_a_model_includes_its_encodings(window):
    def cost(name):
        mixers = {"attention": {"head_dim": 16, "n_kv_heads": 2, "window": window}}
        given = {"layout": "attention x 3", "d_model": 64, "vocab_size": 64, "context_length": 128, "mixers": mixers}
        return model_cost(build(ModelConfig, {**given, "positional": name}, "model"), 128)

    plain, pope = cost("rope"), cost("pope")
    visible = 64.5 if window is None else 16 - 16 * 15 / 256
    assert pope.flops - plain.flops == pytest.approx(3 * 2 * visible * 64)
    assert cost("none").flops == cost("alibi").flops == plain.flops
    for name in ("cope", "stick_breaking", "dape", "path", "fox"):
        assert cost(name).flops > plain.flops
