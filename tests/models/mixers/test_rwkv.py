"""RWKV's mixers in addition to the contract and to their oracles: value residual, extreme decays, initial values,
errors."""

import pytest
import torch
from lcprobe_kernels.gated_linear_attention import cpu
from torch.utils.flop_counter import FlopCounterMode

from lcprobe.choices import choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.rwkv6 import RWKV6, RWKV6Config
from lcprobe.models.mixers.rwkv7 import RWKV7, RWKV7Config
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from tests.models.initialised import initialised
from validation.oracles.recurrences import rwkv7

D, HEAD, SEQLEN = 12, 4, 23


def test_values_of_the_first_layer_are_mixed_in_as_in_the_equation():
    """Outputs and gradients, also of the first layer's values."""
    g = torch.Generator().manual_seed(0)
    layer = RWKV7(RWKV7Config(HEAD, 3, 5, 2, 4, v_first=True, chunk_size=8), D).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=g, dtype=torch.float64) * 0.5)
    x, first, dy = (torch.randn(2, SEQLEN, D, generator=g, dtype=torch.float64) for _ in range(3))
    inputs = [x.requires_grad_(), first.requires_grad_(), *layer.parameters()]
    y, _, carry = layer.forward_with_carry(x, TokenContext(torch.arange(SEQLEN)), None, first)
    assert carry is first
    want = rwkv7(dict(layer.named_parameters()), layer.config, x, first)
    assert (y - want).abs().max() < 1e-11
    for ours, theirs in zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(want, inputs, dy), strict=True):
        assert (ours - theirs).abs().max() < 1e-10 * max(1.0, theirs.abs().max())


def test_a_decay_beyond_float32_forgets_and_has_finite_gradients():
    """exp(100) is infinite in float32, and exp(-exp(10)) zero."""
    layer = RWKV6(RWKV6Config(head_dim=HEAD, d_mix=3, d_decay=2), D)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.5)
        layer.decay_base.fill_(100.0)
    x = torch.randn(1, SEQLEN, D, generator=g)
    where = TokenContext(torch.arange(SEQLEN))
    y, _ = layer(x, where)
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    with torch.no_grad():
        far = x.clone()
        far[:, 3] += 1.0
        assert torch.equal(layer(far, where)[0][:, 6:], y[:, 6:])  # only the shift and S_{t-1} see an earlier token


@pytest.mark.parametrize(
    ("layout", "settings", "line"),
    [
        ("rwkv7, mamba2", {"v_first": True}, "model.mixers.rwkv7.v_first: given True; allowed: null or false with one rwkv7 layer, whose values are the first"),
        ("rwkv6", {"head_dim": 24}, "model.mixers.rwkv6.head_dim: given 24; allowed: a divisor of d_model (64)"),
        ("rwkv7 x 2", {"chunk_size": 48}, "model.mixers.rwkv7.chunk_size: given 48; allowed: a power of two"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(layout, settings, line):
    name = layout[:5]
    given = {"layout": layout, "d_model": 64, "vocab_size": 50, "mixers": {name: {"type": name, **settings}}}
    with pytest.raises(ConfigError) as error:
        LanguageModel(build(ModelConfig, given, "model"))
    assert str(error.value) == line


def test_initial_values_depend_on_depth_as_in_the_release():
    """Against the loops over channels of the release, block 1 of 3."""
    d, n, ratio, left = 64, 16, 1 / 2, 1 - 1 / 3
    given = {"layout": "[rwkv6, rwkv7] x 3", "d_model": d, "vocab_size": 50}
    heads = {name: {"type": name, "head_dim": n} for name in ("rwkv6", "rwkv7")}
    model = LanguageModel(build(ModelConfig, {**given, "layout": "rwkv6 x 3", "mixers": heads}, "model")).initialise(
        0
    )
    six = model.blocks[1].mixer
    model = LanguageModel(build(ModelConfig, {**given, "layout": "rwkv7 x 3", "mixers": heads}, "model")).initialise(
        0
    )
    seven = model.blocks[1].mixer
    for i in (0, 5, 17, 40, 63):
        speed, zigzag = i / (d - 1), (i % n - (n - 1) / 2) / ((n - 1) / 2)
        curved = zigzag * abs(zigzag)
        expected = {
            six.mix[2]: 1 - ((i / d) ** left + 0.3 * ratio),
            six.mix[4]: 1 - (i / d) ** (0.5 * left),
            six.decay_base: -6 + 5 * speed ** (0.7 + 1.3 * ratio),
            six.bonus.flatten(): ratio * (1 - speed) + ((i + 1) % 3 - 1) * 0.1,
            six.norm_weight: (2 / 3) ** 0.7,
            seven.mix[1]: 1 - (i / d) ** (0.9 * left),
            seven.decay_base: -6 + 6 * speed ** (1 + ratio**0.3) + 0.5 + 2.5 * curved,
            seven.rate_base: -0.19 + curved * 0.3 + (speed - 0.5) * 0.4,
            seven.first_base: 0.73 - (speed - 0.5) * 0.4,
        }
        for values, want in expected.items():
            assert float(values[i].detach()) == pytest.approx(want, abs=1e-6)
    for layer in (six, seven):
        assert torch.allclose(layer.key.weight.T @ layer.key.weight, 0.01 * torch.eye(d), atol=1e-6)
        assert not layer.out_proj.weight.any()


@pytest.mark.parametrize("name", ["rwkv6", "rwkv7"])
def test_flops_are_those_that_torch_counts(name):
    """The layer's projections to the last product. Of the op torch counts more (products with scores in full, of which
    half is masked) and less (neither the triangular solve nor sums in place)."""
    d, n, chunk = 64, 256, 32
    config = choose(MIXERS, {"type": name, "head_dim": 16, "chunk_size": chunk}, "mixer").config
    layer = initialised(MIXERS.load(name)(config, d))
    q, k, v, w, a, b = 0.1 * torch.rand(6, 1, n, 4, 16)
    extra = (None, None) if name == "rwkv6" else (a, b)
    with torch.no_grad(), FlopCounterMode(display=False) as projections:
        layer(torch.randn(1, n, d), TokenContext(torch.arange(n)))
    with torch.no_grad(), FlopCounterMode(display=False) as core:
        cpu.forward(cpu.Inputs(q, k, v, w, *extra), None, name == "rwkv7", chunk)
    claimed = layer.cost(config, d, n).flops * n - projections.get_total_flops()
    assert claimed == pytest.approx(core.get_total_flops(), rel=0.02)
