"""The mixers of state-spaces/mamba: settings in both directions, and names of tensors (modules/mamba_simple.py,
mamba2.py, mamba3.py and mha.py)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lcprobe.models.checkpoints.contract import Keys, Place
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.mixers.mamba1 import Mamba1Config
from lcprobe.models.mixers.mamba2 import Mamba2Config
from lcprobe.models.mixers.mamba3 import Mamba3Config
from lcprobe.models.parts import LayerParts

RUNTIME = (
    "use_mem_eff_path", "use_fast_path", "layer_idx", "dt_init", "dt_scale", "conv_init", "dropout", "n_layer",
    "mimo_rank", "chunk_size", "A_init_range", "dt_min", "dt_max", "dt_init_floor",
)  # fmt: skip
"""Settings that change speed or initial values, or nothing."""


@dataclass(frozen=True)
class StateSpace:
    """A state-space mixer. layer: its name in ssm_cfg; settings: ssm_cfg -> ours; config: ours -> ssm_cfg, without
    `layer`; names: its tensors beside projections and convolution, and our parameters."""

    layer: str
    settings: Callable[[Keys], dict[str, Any]]
    config: Callable[[Any], dict[str, Any]]
    names: dict[str, str]


def _mamba1_settings(keys: Keys) -> dict[str, Any]:
    rank = keys.given("dt_rank")
    found: dict[str, Any] = {"dt_rank": None if rank in (None, "auto") else keys.whole("dt_rank", least=1)}
    return found | _whole_numbers(keys, {"d_state": "d_state"}) | _convolution(keys)


def _mamba1_config(config: Mamba1Config) -> dict[str, Any]:
    return {"dt_rank": "auto" if config.dt_rank is None else config.dt_rank, **_with_convolution(config)}


def _mamba2_settings(keys: Keys) -> dict[str, Any]:
    covered = {"d_ssm": None, "D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False}
    for key, value in covered.items():
        keys.only(key, value, default=value)
    found = _whole_numbers(keys, {"d_state": "d_state", "headdim": "head_dim", "ngroups": "n_groups"})
    return found | {"dt_limit": keys.limits("dt_limit")} | _convolution(keys)


def _mamba2_config(config: Mamba2Config) -> dict[str, Any]:
    limits = {} if config.dt_limit == (0.0, None) else {"dt_limit": list(config.dt_limit)}
    return {"headdim": config.head_dim, "ngroups": config.n_groups, **limits, **_with_convolution(config)}


def _mamba3_settings(keys: Keys) -> dict[str, Any]:
    keys.only("is_mimo", False, default=False)
    found = _whole_numbers(keys, {"d_state": "d_state", "headdim": "head_dim", "ngroups": "n_groups"})
    found["output_norm"] = keys.flag("is_outproj_norm", False)
    return found | {
        name: keys.number(name) for name in ("rope_fraction", "A_floor", "expand") if name in keys.mapping
    }


def _mamba3_config(config: Mamba3Config) -> dict[str, Any]:
    return {
        "headdim": config.head_dim,
        "ngroups": config.n_groups,
        "A_floor": config.A_floor,
        "rope_fraction": config.rope_fraction,
        "is_outproj_norm": config.output_norm,
        "is_mimo": False,
        "d_state": config.d_state,
        "expand": _as_whole(config.expand),
    }


def _whole_numbers(keys: Keys, names: dict[str, str]) -> dict[str, Any]:
    return {ours: keys.whole(key, least=1) for key, ours in names.items() if key in keys.mapping}


def _convolution(keys: Keys) -> dict[str, Any]:
    """What Mamba and Mamba-2 have in common; their default of d_conv is 4."""
    found: dict[str, Any] = {"expand": keys.number("expand")} if "expand" in keys.mapping else {}
    found |= {"bias": keys.flag("bias", False), "conv_bias": keys.flag("conv_bias", True)}
    return {"d_conv": keys.whole("d_conv", 4, least=1), **found}


def _with_convolution(config: Mamba1Config | Mamba2Config) -> dict[str, Any]:
    sizes = {"d_state": config.d_state, "d_conv": config.d_conv, "expand": _as_whole(config.expand)}
    return {**sizes, "bias": config.bias, "conv_bias": config.conv_bias}


def _as_whole(x: float) -> int | float:
    return int(x) if x == int(x) else x


SCALARS = {name: name for name in ("A_log", "D", "dt_bias")}
STATE_SPACES = {
    "mamba1": StateSpace(
        "Mamba1",
        _mamba1_settings,
        _mamba1_config,
        {name: name for name in ("A_log", "D", "dt_proj.bias", "dt_proj.weight", "x_proj.weight")},
    ),
    "mamba2": StateSpace("Mamba2", _mamba2_settings, _mamba2_config, {**SCALARS, "norm.weight": "norm_weight"}),
    "mamba3": StateSpace(
        "Mamba3",
        _mamba3_settings,
        _mamba3_config,
        {"D": "D", "dt_bias": "dt_bias", "B_norm.weight": "B_norm_weight", "C_norm.weight": "C_norm_weight"},
    ),
}
"""By the name of our mixer."""


def attention_settings(keys: Keys, d_model: int) -> dict[str, Any]:
    """attn_cfg -> ours, with the defaults of their class."""
    n_heads = keys.whole("num_heads", least=1)
    kv = keys.given("num_heads_kv")
    given = keys.given("head_dim")
    head_dim = d_model // n_heads if given is None else keys.whole("head_dim", least=1)
    keys.only("causal", True)
    keys.only("mlp_dim", 0, default=0)
    keys.only("softmax_scale", None, head_dim**-0.5, default=None)
    keys.only("rotary_emb_interleaved", False, default=False)
    rotary = keys.whole("rotary_emb_dim", 0)
    if rotary > head_dim:
        raise keys.wrong("rotary_emb_dim", f"<= head_dim ({head_dim})")
    rope = {"type": "rope", "base": keys.number("rotary_emb_base", 10000.0), "fraction": rotary / head_dim}
    settings = {
        "n_heads": n_heads,
        "n_kv_heads": n_heads if kv is None else keys.whole("num_heads_kv", least=1),
        "head_dim": head_dim,
        "d_conv": keys.whole("d_conv", 0),
        "bias": keys.flag("qkv_proj_bias", True),
        "output_bias": keys.flag("out_proj_bias", True),
        "positional": rope if rotary else "none",
    }
    keys.no_others(("layer_idx",))
    return settings


def attention_config(config: AttentionConfig, d_model: int) -> dict[str, Any]:
    """Ours -> attn_cfg."""
    n_heads, n_kv_heads = config.heads(d_model)
    encoding = config.positional
    rope = encoding.config if encoding.name == "rope" else None
    return {
        "causal": True,
        "d_conv": config.d_conv,
        "head_dim": config.head_dim,
        "num_heads": n_heads,
        "num_heads_kv": n_kv_heads,
        "out_proj_bias": config.has_output_bias,
        "qkv_proj_bias": config.bias,
        "rotary_emb_dim": 0 if rope is None else int(config.head_dim * rope.fraction),
        "rotary_emb_base": 10000.0 if rope is None else rope.base,
    }


def mixer_places(layer: LayerParts, theirs: str, ours: str) -> dict[str, Place]:
    """The places of a mixer's tensors. theirs, ours: what the names begin with."""
    names = {} if layer.kind == "attention" else STATE_SPACES[layer.kind].names
    found = {theirs + name: Place(ours + own) for name, own in names.items()}
    for name in ("in_proj.weight", "out_proj.weight"):
        found[theirs + name] = Place(ours + name)
    return found | {theirs + name: place for name, place in _optional(layer.config, ours).items()}


def _optional(config: Any, ours: str) -> dict[str, Place]:
    """Tensors that a mixer has or not, by its settings."""
    if isinstance(config, Mamba3Config):
        found = {name: Place(ours + name, ones=(1,)) for name in ("B_bias", "C_bias")}
        return found | ({"norm.weight": Place(f"{ours}norm_weight")} if config.output_norm else {})
    is_attention = isinstance(config, AttentionConfig)
    has = {
        "in_proj.bias": config.bias,
        "out_proj.bias": config.has_output_bias if is_attention else config.bias,
        "conv1d.bias": config.d_conv > 0 if is_attention else config.conv_bias,
    }
    found = {name: Place(ours + name.replace("conv1d.", "conv_")) for name, present in has.items() if present}
    return found | ({"conv1d.weight": Place(f"{ours}conv_weight", ones=(1,))} if config.d_conv else {})
