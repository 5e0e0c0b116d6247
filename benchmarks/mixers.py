"""Training speed of one layer of every recurrent mixer at d_model 256, beside another package's layer of the same
shape that runs on a CPU: transformers', or where it has none flash-linear-attention's naive form. Of Mamba it is
PyPI's mambapy, where that is installed: transformers loops over tokens, which takes minutes.

Forward and backward of one row, float32, on one thread; and the forward pass alone, to 64 K tokens. Times are CPU
time, the least of several rounds, of both sides in turn. The floor is three times the mixer's forward FLOPs at the
speed of this machine's float32 matrix products.
"""

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from lcprobe.choices import choose
from lcprobe.models.mixers import MIXERS
from lcprobe.models.parameters import owners
from lcprobe.models.token_context import TokenContext
from validation.oracles.delta_rule import naive_fla
from validation.oracles.mixers import REQUIRED, transformers_module

TITLE = "one layer of each recurrent mixer, forward and backward, and forward alone to 64 K tokens, d_model 256"
OPTIONS = ("rounds", "lengths", "far", "only")
D_MODEL = 256
FAR_ROUNDS = 2
"""Forward passes at each length."""
PATIENCE = 4.0
"""CPU seconds after which a layer gets no further round."""
Layer = tuple[nn.Module, Callable[[Tensor], Tensor]]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per mixer and length. options: rounds (5), lengths (2048,8192), only (a mixer), far (32768,65536):
    lengths of the forward pass alone."""
    rounds = int(options.get("rounds", 5))
    lengths, far = (
        [int(length) for length in options.get(name, default).split(",") if length]
        for name, default in (("lengths", "2048,8192"), ("far", "32768,65536"))
    )
    names = [options["only"]] if "only" in options else [n for n in MIXERS if MIXERS.load(n).is_recurrent()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            _row(name, length, rounds if length in lengths else 0, length == min(lengths))
            for name in names
            for length in [*lengths, *far]
        ]
    finally:
        torch.set_num_threads(threads)


def _row(name: str, length: int, rounds: int, with_peer: bool) -> dict[str, Any]:
    """rounds: of forward and backward; none at lengths of the forward pass alone. with_peer: beside the peer's layer;
    at further lengths only ours runs."""
    layers = {"ours": _ours(name, length)}
    peer = PEERS.get(name)
    if peer is not None and with_peer:
        layers["peer"] = peer[1](length)
    x = torch.randn(1, length, D_MODEL, generator=torch.Generator().manual_seed(0)).requires_grad_()
    least, spent = dict.fromkeys(layers, float("inf")), dict.fromkeys(layers, 0.0)
    peak = 0.0
    for _ in range(rounds + 1 if rounds else 0):
        peak = max(peak, _peak())
        for who, (_, run) in layers.items():
            if spent[who] < PATIENCE:
                begin = time.process_time()
                y = run(x)
                y.backward(torch.ones_like(y))
                took = time.process_time() - begin
                least[who], spent[who] = min(least[who], took), spent[who] + took
    mixer = layers["ours"][0]
    flops = 3 * length * MIXERS.load(name).cost(mixer.config, D_MODEL, length).flops
    return {
        "mixer": name,
        "tokens": length,
        "tokens/s": round(length / least["ours"]) if rounds else "",
        "share of floor": f"{flops / peak / least['ours']:.0%}" if rounds else "",
        "peak GFLOP/s": round(peak / 1e9) if rounds else "",
        "peer": peer[0] if peer and "peer" in layers else "",
        "peer's tokens/s": round(length / least["peer"]) if "peer" in layers else "",
        "x peer": f"{least['peer'] / least['ours']:.2f}" if "peer" in layers else "",
        "forward us/token": round(_forward_seconds(layers["ours"][1], x) / length * 1e6, 1),
    }


@torch.no_grad()
def _forward_seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """CPU time of a forward pass, the least of FAR_ROUNDS."""
    took = []
    for _ in range(FAR_ROUNDS):
        begin = time.process_time()
        run(x)
        took.append(time.process_time() - begin)
    return min(took)


def _ours(name: str, length: int) -> Layer:
    """A mixer with its default settings and initial values."""
    mixer: Any = choose(MIXERS, {"type": name, **REQUIRED.get(name, {})}, "mixer").create(D_MODEL)
    parameters = dict(mixer.named_parameters())
    with torch.no_grad():
        for i, (own, owner, own_name) in enumerate(owners(mixer)):
            value = torch.empty(parameters[own].shape, dtype=torch.float64)
            owner.init_parameter(own_name, value, torch.Generator().manual_seed(i))
            parameters[own].copy_(value)
    where = TokenContext(torch.arange(length), length=length)
    return mixer, lambda x: mixer(x, where)[0]


def _peak() -> float:
    """FLOPs per CPU second of a float32 matrix product."""
    a = torch.ones(1024, 1024)
    begin = time.process_time()
    torch.mm(a, a)
    return 2 * 1024**3 / (time.process_time() - begin)


def _mamba1(length: int) -> Layer:
    modeling = transformers_module("mamba")
    layer = modeling.MambaMixer(modeling.MambaConfig(hidden_size=D_MODEL, num_hidden_layers=1), 0)
    return layer, lambda x: layer(x)


def _mambapy(length: int) -> Layer:
    package = import_module("mambapy.mamba")
    layer = package.MambaBlock(package.MambaConfig(d_model=D_MODEL, n_layers=1))
    return layer, lambda x: layer(x)


def _mamba2(length: int) -> Layer:
    modeling = transformers_module("mamba2")
    config = modeling.Mamba2Config(
        hidden_size=D_MODEL, num_heads=8, head_dim=64, state_size=128, n_groups=1, expand=2, chunk_size=64
    )
    layer = modeling.Mamba2Mixer(config, 0)
    return layer, lambda x: layer(x)


def _gated_deltanet(length: int) -> Layer:
    modeling = transformers_module("qwen3_next")
    config = modeling.Qwen3NextConfig(
        hidden_size=D_MODEL, linear_num_key_heads=4, linear_num_value_heads=4, linear_key_head_dim=64,
        linear_value_head_dim=128, num_hidden_layers=1, layer_types=["linear_attention"],
    )  # fmt: skip
    layer = modeling.Qwen3NextGatedDeltaNet(config, 0)
    return layer, lambda x: layer(x)


def _gla(length: int) -> Layer:
    """fla's layer, its Triton op replaced by fla's loop over time."""
    layer = import_module("fla.layers.gla").GatedLinearAttention(hidden_size=D_MODEL, num_heads=4)
    return layer, partial(_run_naively, layer)


def _lightning(length: int) -> Layer:
    modeling = transformers_module("minimax")
    config = modeling.MiniMaxConfig(
        hidden_size=D_MODEL, num_attention_heads=4, num_hidden_layers=1, layer_types=["linear_attention"],
        block_size=64,
    )  # fmt: skip
    layer = modeling.MiniMaxLightningAttention(config, 0)
    return layer, lambda x: layer(x, None, None)[0]


def _delta_product(length: int) -> Layer:
    """fla's layer, its Triton op replaced by transformers' chunks over the steps of all tokens: fla's naive form is a
    loop over time."""
    fla, rule = import_module("fla.layers.gated_deltaproduct"), transformers_module("qwen3_next")
    layer = fla.GatedDeltaProduct(D_MODEL, head_dim=64, num_heads=4)

    def in_chunks(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, num_householder: int, **_: Any):
        n = num_householder
        q = torch.stack([torch.zeros_like(q)] * (n - 1) + [q], 2).flatten(1, 2)
        g = torch.stack([g] + [torch.zeros_like(g)] * (n - 1), 2).flatten(1, 2)
        o, _ = rule.torch_chunk_gated_delta_rule(q, k, v, g, beta, use_qk_l2norm_in_kernel=True)
        return o[:, n - 1 :: n], None

    def run(x: Tensor) -> Tensor:
        with naive_fla(), patch.object(fla, "chunk_gated_delta_product", in_chunks):
            return layer(x)[0]

    return layer, run


def _gdn2(length: int) -> Layer:
    """fla's layer, its Triton op replaced by fla's loop over time, which is faster here than its naive chunks."""
    layer = import_module("fla.layers.gdn2").GatedDeltaNet2(D_MODEL, head_dim=64, num_heads=4)
    return layer, partial(_run_naively, layer)


def _run_naively(layer: nn.Module, x: Tensor) -> Tensor:
    with naive_fla():
        return layer(x)[0]


def _mlstm(length: int) -> Layer:
    modeling = transformers_module("xlstm")
    layer = modeling.xLSTMLayer(modeling.xLSTMConfig(hidden_size=D_MODEL, num_heads=4))
    return layer, lambda x: layer(x)[0]


def _kda(length: int) -> Layer:
    modeling = transformers_module("kimi_linear")
    config = modeling.KimiLinearConfig(
        hidden_size=D_MODEL, linear_num_heads=4, linear_head_dim=64, num_hidden_layers=1,
        layer_types=["linear_attention"],
    )  # fmt: skip
    layer = modeling.KimiLinearDeltaAttention(config, 0)
    with torch.no_grad():
        layer.forget_gate.A_log.fill_(1.0)
        layer.forget_gate.dt_bias.fill_(-3.0)
    return layer, lambda x: layer(x)


def _rg_lru(length: int) -> Layer:
    modeling = transformers_module("recurrent_gemma")
    config = modeling.RecurrentGemmaConfig(hidden_size=D_MODEL, lru_width=D_MODEL, num_attention_heads=8)
    layer, positions = modeling.RecurrentGemmaRecurrentBlock(config, 0), torch.arange(length)[None]
    for parameter in layer.parameters():
        nn.init.normal_(parameter, 0.0, 0.05)
    return layer, lambda x: layer(x, positions, None, use_cache=False)[0]


PEERS: dict[str, tuple[str, Callable[[int], Layer]]] = {
    "mamba1": ("mambapy MambaBlock", _mambapy) if find_spec("mambapy") else ("transformers MambaMixer", _mamba1),
    "mamba2": ("transformers Mamba2Mixer", _mamba2),
    "delta_product": ("fla GatedDeltaProduct, transformers' chunks", _delta_product),
    "gdn2": ("fla GatedDeltaNet2, its naive loop", _gdn2),
    "gated_deltanet": ("transformers Qwen3NextGatedDeltaNet", _gated_deltanet),
    "gla": ("fla GatedLinearAttention, its naive loop", _gla),
    "kda": ("transformers KimiLinearDeltaAttention", _kda),
    "lightning": ("transformers MiniMaxLightningAttention", _lightning),
    "mlstm": ("transformers xLSTMLayer", _mlstm),
    "rg_lru": ("transformers RecurrentGemmaRecurrentBlock", _rg_lru),
}
"""The peer's name, and its layer for rows of some length with the shapes of our defaults."""
