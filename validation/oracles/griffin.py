"""rg_lru in Griffin, with its local attention, MLPs, scaled embedding and capped logits: RecurrentGemma in
transformers and as Google released it, which keeps packed documents apart.

Google's code shows window + 1 keys, transformers' window. Its package is installed by `pip install --no-deps
recurrentgemma==1.0.1`: it requires jax and flax, which its models in PyTorch do not need, and they are imported
without its `__init__`. Recurrences are float32 in both, whatever the dtype.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from validation.oracles.cases import Comparison
from validation.oracles.mixers import D_MODEL, VOCAB, Peer, perturbed, published, transformers_module

WIDTH, HEADS, D_FF, WINDOW = 36, 3, 40, 20
LOCAL = {
    "type": "attention", "n_heads": HEADS, "n_kv_heads": 1, "head_dim": D_MODEL // HEADS, "window": WINDOW,
    "window_counts_self": False, "output_bias": True, "positional": {"type": "rope", "fraction": 0.5},
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "layout": "rg_lru+mlp x 2, local+mlp", "d_ff": D_FF, "norm": "zero_centred_rms", "norm_eps": 1e-6,
    "mlp": {"type": "geglu", "bias": True}, "embedding_scale": "sqrt_d_model_bf16", "logit_soft_cap": 2.0,
    "mixers": {"rg_lru": {"expand": WIDTH / D_MODEL, "n_blocks": HEADS}, "local": LOCAL},
}  # fmt: skip
"""Of Google's model."""


def transformers_model(dtype: torch.dtype) -> Iterator[Comparison]:
    """transformers' RecurrentGemma, one document a row."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("recurrent_gemma")
    torch.manual_seed(0)
    theirs = modeling.RecurrentGemmaForCausalLM(
        modeling.RecurrentGemmaConfig(
            vocab_size=VOCAB, hidden_size=D_MODEL, lru_width=WIDTH, num_attention_heads=HEADS, num_key_value_heads=1,
            head_dim=D_MODEL // HEADS, intermediate_size=2 * D_FF, num_hidden_layers=3, attention_window_size=WINDOW,
            logits_soft_cap=2.0, rms_norm_eps=1e-6, pad_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        )
    )  # fmt: skip

    own = published("hf_recurrent_gemma", theirs)

    def run(tokens: Tensor, positions: Tensor) -> Tensor:
        return theirs(tokens, use_cache=False).logits

    yield from Peer("rg_lru, Griffin", perturbed(theirs), run, *own).compare()


def google_model(dtype: torch.dtype) -> Iterator[Comparison]:
    """Google's Griffin, with packed documents."""
    if dtype == torch.float64:
        return
    common, griffin = google_modules("common", "torch.griffin")
    kinds = common.TemporalBlockType
    torch.manual_seed(0)
    theirs = griffin.Griffin(
        common.GriffinConfig(
            vocab_size=VOCAB, width=D_MODEL, mlp_expanded_width=D_FF, num_heads=HEADS, lru_width=WIDTH,
            block_types=(kinds.RECURRENT, kinds.RECURRENT, kinds.ATTENTION), embeddings_scale_by_sqrt_dim=True,
            attention_window_size=WINDOW, logits_soft_cap=2.0,
        ),
        gradient_checkpointing=False,
    )  # fmt: skip

    def run(tokens: Tensor, positions: Tensor) -> Tensor:
        return theirs(tokens, positions, return_cache=False)[0]

    peer = Peer("rg_lru, Griffin", perturbed(theirs), run, CONFIG, _from_google, packed=(1, 2, 70))
    yield from peer.compare()


def google_modules(*names: str) -> list[ModuleType]:
    """Modules of recurrentgemma. Raises ImportError where the package is not installed."""
    spec = find_spec("recurrentgemma")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("No module named 'recurrentgemma'")
    stubs: dict[str, Any] = {"jaxtyping": MagicMock()}
    for name, folder in {"recurrentgemma": "", "recurrentgemma.torch": "/torch"}.items():
        stubs[name] = ModuleType(name)
        stubs[name].__path__ = [path + folder for path in spec.submodule_search_locations]
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        return [import_module(f"recurrentgemma.{name}") for name in names]
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("recurrentgemma", "jaxtyping")]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if module is not None})


def _from_google(named: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {"embedding.weight": named["embedder.input_embedding"], "norm.weight": named["final_norm.scale"]}
    for i in range(3):
        block, mlp = f"blocks.{i}.", f"blocks.{i}.mlp_block."
        gate, up = named[mlp + "ffw_up.w"]
        gate_bias, up_bias = named[mlp + "ffw_up.b"].flatten(1)
        ours |= {
            block + "norm.weight": named[block + "temporal_pre_norm.scale"],
            block + "norm2.weight": named[block + "channel_pre_norm.scale"],
            block + "mlp.up_gate.weight": torch.cat([up.T, gate.T]),
            block + "mlp.up_gate.bias": torch.cat([up_bias, gate_bias]),
            block + "mlp.out_proj.weight": named[mlp + "ffw_down.weight"],
            block + "mlp.out_proj.bias": named[mlp + "ffw_down.bias"],
        }
        if i == 2:
            mixer = block + "attention_block."
            qkv = torch.cat([named[f"{mixer}proj_{name}.weight"] for name in "qkv"])
            ours |= {block + "mixer.in_proj.weight": qkv}
            ours |= {
                f"{block}mixer.out_proj.{part}": named[f"{mixer}proj_final.{part}"] for part in ("weight", "bias")
            }
        else:
            mixer = block + "recurrent_block."
            names = ("input_gate.{}", "a_gate.{}", "w", "b", "a_param")
            conv = named[mixer + "conv_1d.w"].T, named[mixer + "conv_1d.b"]
            ours |= {f"{block}mixer.{k}": v for k, v in _rg_lru(named, mixer, *conv, *names).items()}
    return ours


def _rg_lru(
    named: dict[str, Tensor],
    block: str,
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: str,
    recurrence_gate: str,
    weight: str,
    bias: str,
    a_param: str,
) -> dict[str, Tensor]:
    """A recurrent block under our names; with names of gates, and of their weights and biases."""
    own = {name.removeprefix(block): value for name, value in named.items() if name.startswith(block)}
    gates = [
        [own[f"rg_lru.{gate.format(part)}"] for gate in (input_gate, recurrence_gate)] for part in (weight, bias)
    ]
    return {
        "in_proj.weight": torch.cat([own["linear_y.weight"], own["linear_x.weight"]]),
        "in_proj.bias": torch.cat([own["linear_y.bias"], own["linear_x.bias"]]),
        "conv_weight": conv_weight,
        "conv_bias": conv_bias,
        "gate_weight": torch.cat(gates[0], dim=2),
        "gate_bias": torch.cat(gates[1], dim=1).flatten(),
        "a_param": own[f"rg_lru.{a_param}"],
        "out_proj.weight": own["linear_out.weight"],
        "out_proj.bias": own["linear_out.bias"],
    }
