"""Extensions of Mamba2 layers against the recurrence written down in float64; chunks, decoding and the identity for all."""

import pytest
import torch
from torch.nn import functional as F

from lcprobe.choices import build, choose
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import Around
from lcprobe.models.extend.contract import extended as change
from lcprobe.models.language_model import LanguageModel

MAMBA = {"head_dim": 8, "d_state": 4, "chunk_size": 8}
NAMES = ["dt_scale", "a_scale", "stuffed", "state_window", "decimamba", "longmamba"]
CHANGED = {
    "dt_scale": {"scale": 0.5},
    "a_scale": {"scale": [0.5, 1.5]},
    "stuffed": {},
    "state_window": {"window": 7},
    "decimamba": {"kept": 0.5},
    "longmamba": {"kept": 0.5, "reach": 1e-9},
}
SAME = {
    "dt_scale": {"scale": 1.0},
    "a_scale": {"scale": 1.0, "mode": "log"},
    "stuffed": {"retention": 1.0, "insertion": 1.0},
    "decimamba": {"kept": 1.0},
    "longmamba": {"kept": 1.0},
}


def model(layout="mamba2 x 2"):
    mixers = {"mamba2": MAMBA, "attention": {"head_dim": 8}}
    config = {"layout": layout, "d_model": 16, "vocab_size": 32, "mixers": mixers, "initializer_range": 0.5}
    return LanguageModel(build(ModelConfig, config, "model")).initialise(2).double().eval()


def text(n, length, seed):
    return torch.randint(0, 32, (n, length), generator=torch.Generator().manual_seed(seed + 7))


def extended(name, settings, layout="mamba2 x 2", factor=2.0):
    made = model(layout)
    choice = choose(EXTENSIONS, {"type": name, **settings}, "pe.extend")
    return change(made, choice.made_by(choice.config), Around(16, factor, text))


def recurrence(layer, x, scale_a=1.0, gain=1.0, window=None, keep=None):
    """One Mamba2 layer token by token, from its own parameters: what each extension is said to do."""
    c = layer.config
    z, xbc, dt = layer.in_proj(x).split([layer.d_inner, layer.d_xbc, layer.n_heads], dim=-1)
    padded = F.pad(xbc.transpose(1, 2), (c.d_conv - 1, 0))
    xbc = F.silu(F.conv1d(padded, layer.conv_weight[:, None], layer.conv_bias, groups=layer.d_xbc)).transpose(1, 2)
    inner, b, read = xbc.split([layer.d_inner, c.d_state, c.d_state], dim=-1)
    inner = inner.unflatten(-1, (layer.n_heads, c.head_dim))
    dt = F.softplus(dt + layer.dt_bias)
    dt = dt if keep is None else dt * keep(dt)
    decay = (-layer.A_log.exp() * scale_a * dt).exp()
    rows = []
    for t in range(x.shape[1]):
        h = 0
        for s in range(0 if window is None else max(0, t - window + 1), t + 1):
            fade = decay[:, s + 1 : t + 1].prod(1)
            wrote = torch.einsum("bh,bhp,bn->bhpn", dt[:, s], inner[:, s], b[:, s]) * gain
            h = h + fade[..., None, None] * wrote
        rows.append(torch.einsum("bhpn,bn->bhp", h, read[:, t]) + layer.D[:, None] * inner[:, t])
    y = torch.stack(rows, 1).flatten(2) * F.silu(z)
    y = y * (y.square().mean(-1, keepdim=True) + c.norm_eps).rsqrt() * layer.norm_weight
    return layer.out_proj(y)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("dt_scale", {"scale": 0.5}, {"scale_a": 0.5, "gain": 0.5}),
        ("a_scale", {"scale": 0.5}, {"scale_a": 0.5}),
        ("stuffed", {"retention": 1.3, "insertion": 0.7}, {"scale_a": 1.3, "gain": 0.7}),
        ("state_window", {"window": 5}, {"window": 5}),
        ("state_window", {"window": 1}, {"window": 1}),
    ],
)
@torch.no_grad()
def test_equals_the_recurrence(name, settings, said):
    from lcprobe.models.where import Where

    layer = extended(name, settings).blocks[0].mixer
    x = torch.randn(2, 13, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got, _ = layer(x, Where(torch.arange(13)))
    assert (got - recurrence(layer, x, **said)).abs().max() < 1e-10


@torch.no_grad()
def test_skipped_tokens_neither_write_nor_decay():
    from lcprobe.models.where import Where

    for name in ("decimamba", "longmamba"):
        layer = extended(name, CHANGED[name]).blocks[1].mixer
        threshold = layer.scan.threshold.double()

        def keep(dt, name=name, threshold=threshold):
            return ((dt.mean(-1, keepdim=True) if name == "decimamba" else dt) >= threshold).double()

        x = torch.randn(2, 30, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        got, _ = layer(x, Where(torch.arange(30)))
        assert (got - recurrence(layer, x, keep=keep)).abs().max() < 1e-10
        assert (got - recurrence(layer, x)).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_chunks_and_decoding_equal_the_whole_and_the_checkpoint_stays(name):
    layout = "mamba2, attention" if name != "a_scale" else "mamba2 x 2"
    made, plain = extended(name, CHANGED[name], layout), model(layout)
    tokens = text(2, 33, 0)
    whole, _ = made.hidden(tokens)
    for cuts in ([10, 11, 30], list(range(1, 33))):
        state, parts, edges = made.new_state(2), [], [0, *cuts, 33]
        for lo, hi in zip(edges, edges[1:], strict=False):
            part, state = made.hidden(tokens[:, lo:hi], state=state)
            parts.append(part)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-9
    assert (plain.hidden(tokens)[0] - whole).abs().max() > 1e-4, "the method does something"
    for key, value in plain.state_dict().items():
        assert torch.equal(value, made.state_dict()[key])
    fork = state.fork(2).rows(torch.tensor([0, 3]))
    assert (made.hidden(tokens[:, :3], state=fork)[0] - made.hidden(tokens[:, :3], state=state)[0]).abs().max() < 1e-12


@pytest.mark.parametrize("name", SAME)
@torch.no_grad()
def test_the_identity_is_bit_for_bit(name):
    tokens = text(2, 40, 1)
    assert torch.equal(extended(name, SAME[name]).hidden(tokens)[0], model().hidden(tokens)[0])


@torch.no_grad()
def test_a_window_over_everything_changes_nothing():
    tokens = text(2, 20, 1)
    assert (extended("state_window", {"window": 20}).hidden(tokens)[0] - model().hidden(tokens)[0]).abs().max() < 1e-9


def test_calibration_ends_where_no_single_layer_can_do_better():
    made, ids, weights = model("mamba2 x 3"), text(4, 32, 5), torch.ones(4, 32)
    with torch.no_grad():
        before = float(made.loss(ids, weights)[0])
        values = [0.25, 1.0, 4.0]
        choice = choose(EXTENSIONS, {"type": "a_scale", "search": {"values": values, "rounds": 4}}, "pe.extend")
        choice.made_by(choice.config).apply(made, Around(16, 2.0, lambda n, length, seed: ids))
        after = float(made.loss(ids, weights)[0])
        assert after < before
        scans = [block.mixer.scan for block in made.blocks]
        assert any(scan.a != 1.0 for scan in scans)
        for scan in scans:
            best = scan.a
            for value in values:
                scan.a = value
                assert float(made.loss(ids, weights)[0]) >= after
            scan.a = best


@pytest.mark.parametrize(
    ("name", "settings", "layout", "factor", "said"),
    [
        ("dt_scale", {"scale": 0.5}, "attention x 2", 2.0, "no Mamba2 layer"),
        ("a_scale", {"scale": [1.0]}, "mamba2 x 2", 2.0, "one number for each of 2 layers"),
        ("a_scale", {}, "mamba2 x 2", None, "changes a model for one length"),
        ("decimamba", {}, "mamba2 x 2", None, "changes a model for one length"),
        ("decimamba", {"layers": [2]}, "mamba2 x 2", 2.0, "0 .. 1"),
        ("longmamba", {"reach": 2}, "mamba2 x 2", 2.0, "0 < reach < 1"),
        ("dt_scale", {"scale": 0}, "mamba2 x 2", 2.0, "> 0"),
        ("stuffed", {"retention": -1}, "mamba2 x 2", 2.0, "> 0"),
    ],
)
def test_what_does_not_fit_is_one_line(name, settings, layout, factor, said):
    with pytest.raises(ConfigError, match=said.replace("..", r"\.\.")) as caught:
        extended(name, settings, layout, factor)
    assert "\n" not in str(caught.value)
