"""Small models of state-spaces/mamba, of the shapes that are published: as its own code saves them, where its source
is given, and as its names and shapes say, with logits by their equations in float64.

The package does not import without its CUDA extensions, so its source is read from a folder, and four things are
replaced: the extension of the scan, flash-attn's rotary embedding, the convolution, and Triton kernels by the plain
functions that the package tests them against.
"""

import json
import sys
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from validation.checkpoints.cases import VOCAB, Case, Logits
from validation.checkpoints.mamba_ssm_equations import logits_of, shapes_of

ATTENTION = {"causal": True, "d_conv": 4, "head_dim": 8, "num_heads": 5, "out_proj_bias": False,
             "qkv_proj_bias": False, "rotary_emb_dim": 4}  # fmt: skip
SIZES: dict[str, Any] = {
    "d_model": 24, "n_layer": 3, "vocab_size": VOCAB, "pad_vocab_size_multiple": 16, "d_intermediate": 0,
    "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": False,
    "tie_embeddings": True, "ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_state": 6},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "mamba2": {},
    "mamba2, groups, biases, LayerNorm, untied": {
        "ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_state": 6, "ngroups": 2, "bias": True, "d_conv": 3},
        "tie_embeddings": False,
        "rms_norm": False,
    },
    "mamba2attn": {"attn_layer_idx": [1], "attn_cfg": ATTENTION},
    "mamba2attn, shared keys, biases, MLPs": {
        "attn_layer_idx": [0, 2],
        "attn_cfg": {"causal": True, "num_heads": 4, "num_heads_kv": 2},
        "d_intermediate": 70,
    },
    "transformerpp": {
        "attn_layer_idx": [0, 1, 2],
        "attn_cfg": {**ATTENTION, "d_conv": 0, "num_heads": 3, "rotary_emb_dim": 8},
        "d_intermediate": 64,
        "ssm_cfg": {},
    },
    "mamba": {"ssm_cfg": {"d_state": 5}},
}
MAMBA3: dict[str, Any] = {
    **SIZES,
    "d_intermediate": 64,
    "ssm_cfg": {"layer": "Mamba3", "headdim": 8, "d_state": 8, "is_mimo": False},
}
"""The package's class of models does not take it."""


def written(folder: Path, config: Mapping[str, Any], definition: str | None) -> Logits:
    """A checkpoint with the published names and shapes, and its equations. definition: of Mamba-3."""
    tensors = {}
    for i, (name, shape) in enumerate(shapes_of(config).items()):
        value = 0.15 * torch.randn(shape, generator=torch.Generator().manual_seed(i))
        tensors[name] = value + 1 if "norm" in name and name.endswith("weight") else value
    if config["tie_embeddings"]:
        tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return partial(logits_of, {name: t.double() for name, t in tensors.items()}, config, definition)


def saved(folder: Path, config: Mapping[str, Any], source: Path | None) -> Logits:
    """A checkpoint as the package saves it, and its logits. source: a folder that has the package. Raises ImportError
    without it."""
    model = built(config, source)
    model.save_pretrained(folder)
    return lambda tokens: model(tokens).logits


def built(config: Mapping[str, Any], source: Path | None) -> Any:
    """A model of the package with random weights. source: as `saved`."""
    if source is None:
        raise ImportError("its source is not given (mamba_ssm=FOLDER)")
    models, config_class = imported(source)
    torch.manual_seed(0)
    model = models.MambaLMHeadModel(config_class(**config)).eval()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return _without_kernels(model)


def read(folder: Path, source: Path | None) -> Logits:
    """The model in a folder as the package loads it, which knows no safetensors: all tensors must be there."""
    if source is None:
        raise ImportError("its source is not given (mamba_ssm=FOLDER)")
    models, config_class = imported(source)
    config = json.loads((folder / "config.json").read_text()) | {"fused_add_norm": False}  # a kernel
    model = models.MambaLMHeadModel(config_class(**config)).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    _without_kernels(model)
    return lambda tokens: model(tokens).logits


def _without_kernels(model: Any) -> Any:
    """A model of the package, without those that fuse a whole layer."""
    for layer in model.backbone.layers:
        for name in ("use_mem_eff_path", "use_fast_path"):
            if name in vars(layer.mixer):
                setattr(layer.mixer, name, False)
    return model


def imported(source: Path) -> tuple[Any, Any]:
    """mamba_ssm's module of models, and the class of their configs, imported anew without what needs a GPU."""

    def stub(name: str, **attributes: Any) -> ModuleType:
        module = ModuleType(name)
        vars(module).update(attributes)
        return module

    stubs = {
        "mamba_ssm": stub("mamba_ssm", __path__=[str(source / "mamba_ssm")]),  # without its __init__
        "selective_scan_cuda": stub("selective_scan_cuda"),
        "causal_conv1d": stub("causal_conv1d", causal_conv1d_fn=_convolve, causal_conv1d_update=None),
        "flash_attn": stub("flash_attn", __path__=[]),
        "flash_attn.layers": stub("flash_attn.layers", __path__=[]),
        "flash_attn.layers.rotary": stub("flash_attn.layers.rotary", RotaryEmbedding=_Rotary),
    }
    with patch.dict(sys.modules, stubs):
        models = import_module("mamba_ssm.models.mixer_seq_simple")
        config = import_module("mamba_ssm.models.config_mamba").MambaConfig
        mamba2, mamba = (import_module(f"mamba_ssm.modules.{name}") for name in ("mamba2", "mamba_simple"))
        norm, gated, ssd = (
            import_module(f"mamba_ssm.ops.triton.{name}")
            for name in ("layer_norm", "layernorm_gated", "ssd_combined")
        )
        scan = import_module("mamba_ssm.ops.selective_scan_interface")

    def norm_forward(self: Any, x: Tensor) -> Tensor:
        return norm.rms_norm_ref(x, self.weight, self.bias, eps=self.eps)

    def gated_forward(self: Any, x: Tensor, z: Tensor | None = None) -> Tensor:
        settings = (z, self.eps, self.group_size, self.norm_before_gate)
        return gated.rms_norm_ref(x, self.weight, self.bias, *settings)

    def chunk_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk_size: int, **given: Any) -> Tensor:
        n = x.shape[1]  # the plain function takes whole chunks only
        x, dt, b, c = (F.pad(t, (0, 0) * (t.dim() - 2) + (0, -n % chunk_size)) for t in (x, dt, b, c))
        settings = {name: given[name] for name in ("D", "dt_bias", "dt_softplus")}
        return ssd.ssd_chunk_scan_combined_ref(x, dt, a, b, c, chunk_size, **settings)[:, :n]

    norm.RMSNorm.forward, gated.RMSNorm.forward = norm_forward, gated_forward
    vars(mamba2)["mamba_chunk_scan_combined"] = chunk_scan
    vars(mamba)["selective_scan_fn"] = scan.selective_scan_ref
    return models, config


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, seq_idx: None = None
) -> Tensor:
    """causal_conv1d's function. x: (batch, channels, n)."""
    n, width = x.shape[-1], weight.shape[1]
    y = F.conv1d(x, weight[:, None], bias, padding=width - 1, groups=x.shape[1])[..., :n]
    return y if activation is None else F.silu(y)


class _Rotary(nn.Module):
    """flash-attn's rotary embedding, halves of the first `dim` channels."""

    def __init__(self, dim: int, base: float = 10000.0, interleaved: bool = False, device: Any = None):
        super().__init__()
        self.frequencies = base ** (-torch.arange(0, dim, 2).double() / dim)

    def forward(self, q: Tensor, kv: Tensor, seqlen_offset: int = 0, max_seqlen: int | None = None) -> Any:
        angles = torch.arange(seqlen_offset, seqlen_offset + q.shape[1])[:, None] * self.frequencies
        cos, sin = angles.cos().to(q.dtype)[:, None], angles.sin().to(q.dtype)[:, None]

        def turned(x: Tensor) -> Tensor:
            half = cos.shape[-1]
            a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)

        k, v = kv.unbind(2)
        return turned(q), torch.stack([turned(k), v], dim=2)


def cases(source: Path | None) -> list[Case]:
    """All of them. source: a folder that has the package, such as the unpacked
    `pip download --no-deps --no-binary :all: mamba-ssm==2.3.2.post1`."""
    found = []
    for name, given in MODELS.items():
        config = {**SIZES, **given}
        found.append(Case("mamba_ssm", name, "mamba-ssm", partial(saved, config=config, source=source)))
        found.append(Case("mamba_ssm", name, "equations", partial(written, config=config, definition=None)))
    for name in ("softplus", "heavy_tail"):
        write = partial(written, config=MAMBA3, definition=name)
        found.append(Case("mamba_ssm", f"mamba3, {name}", "equations", write, {"definition": name}))
    return found
