"""Checkpoints of state-spaces/mamba (models/mixer_seq_simple.py): Mamba, Mamba-2 and Mamba-3 models, hybrids with
attention, and Transformer++.

config.json has no model_type but `ssm_cfg`. Attention projects q, k, v together and may convolve them, with a bias
and without an activation; the width of MLPs is rounded up to a multiple of 128, and `fc1` gives the value first, then
the gate.

Mamba-3 checkpoints do not say which of two functions they were trained with (see mixers/mamba3.py): the setting
`definition` must.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lcprobe.errors import CheckpointError
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.mixers.mamba1 import Mamba1Config
from lcprobe.models.mixers.mamba2 import Mamba2Config
from lcprobe.models.mixers.mamba3 import Mamba3Config
from lcprobe.models.parts import LayerParts, parts_of, resolved_sizes

MLP_MULTIPLE = 128
NAMES = {
    "mamba1": {"A_log": "A_log", "D": "D", "dt_proj.bias": "dt_proj.bias", "dt_proj.weight": "dt_proj.weight",
               "x_proj.weight": "x_proj.weight"},
    "mamba2": {"A_log": "A_log", "D": "D", "dt_bias": "dt_bias", "norm.weight": "norm_weight"},
    "mamba3": {"D": "D", "dt_bias": "dt_bias", "B_norm.weight": "B_norm_weight", "C_norm.weight": "C_norm_weight"},
    "attention": {},
}  # fmt: skip
"""Tensors of mixers beside projections and convolution, and our parameters."""
RUNTIME = (
    "use_mem_eff_path",
    "use_fast_path",
    "layer_idx",
    "dt_init",
    "dt_scale",
    "conv_init",
    "dropout",
    "n_layer",
    "mimo_rank",
    "chunk_size",
    "A_init_range",
    "dt_min",
    "dt_max",
    "dt_init_floor",
)
"""Settings of mixers that change speed or initial values."""


@dataclass(frozen=True)
class MambaSSMConfig(FormatConfig):
    """What these checkpoints do not say."""

    definition: Literal["softplus", "heavy_tail"] | None = None
    """The function that a Mamba-3 checkpoint was trained with: softplus (mamba-ssm 2.3.2, also
    flash-linear-attention 0.6.0), or heavy_tail (mamba from June 2026); null: refuse such a checkpoint."""


class MambaSSM(Format[MambaSSMConfig]):
    """state-spaces/mamba."""

    Config = MambaSSMConfig
    name = "mamba_ssm"
    writes_copies = True

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return "model_type" not in config and {"d_model", "n_layer"} <= config.keys()

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        n_layer, d_model = keys.whole("n_layer", least=1), keys.whole("d_model", least=1)
        ssm, attention_at = keys.section("ssm_cfg"), keys.items("attn_layer_idx", [])
        for i in attention_at:
            if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < n_layer:
                raise keys.wrong("attn_layer_idx", f"layers 0 .. {n_layer - 1}")
        mixer = {"Mamba1": "mamba1", "Mamba2": "mamba2", "Mamba3": "mamba3"}[
            ssm.only("layer", "Mamba1", "Mamba2", "Mamba3", default="Mamba1")
        ]
        mixers: dict[str, Any] = {}
        if len(attention_at) < n_layer:
            mixers[mixer] = self._ssm(mixer, ssm)
        if attention_at:
            mixers["attention"] = _attention(keys.section("attn_cfg"), d_model)
        d_ff = keys.whole("d_intermediate", 0)
        main = mixer if len(attention_at) < n_layer else "attention"
        multiple = keys.whole("pad_vocab_size_multiple", 8, least=1)
        settings = {
            "layout": f"{main}+mlp" if d_ff else main,
            "n_layers": n_layer,
            "attn_layer_idx": sorted(attention_at) if attention_at and main != "attention" else None,
            "d_model": d_model,
            "d_ff": -(-d_ff // MLP_MULTIPLE) * MLP_MULTIPLE if d_ff else None,
            "mixers": mixers,
            "norm": "rms" if keys.flag("rms_norm", True) else "layer",
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": multiple,
            "tie_embeddings": keys.flag("tie_embeddings", True),
            "residual_in_fp32": keys.flag("residual_in_fp32", True),
            "norm_eps": keys.number("norm_epsilon", 1e-5),
        }
        keys.no_others(("attn_cfg", "fused_add_norm", "initializer_cfg", "architectures", "torch_dtype", "dtype"))
        return settings

    def _ssm(self, mixer: str, ssm: Keys) -> dict[str, Any]:
        """Settings of the state-space mixer. Their defaults are ours, but for the width of Mamba's convolution."""
        names = {"d_state": "d_state", "headdim": "head_dim", "ngroups": "n_groups"}
        if mixer == "mamba1":
            names = {"d_state": "d_state"}
            rank = ssm.given("dt_rank")
            found: dict[str, Any] = {"dt_rank": None if rank in (None, "auto") else ssm.whole("dt_rank", least=1)}
        elif mixer == "mamba2":
            found = {"chunk_size": None}
            for key, covered in {
                "d_ssm": None,
                "D_has_hdim": False,
                "rmsnorm": True,
                "norm_before_gate": False,
            }.items():
                ssm.only(key, covered, default=covered)
            found["dt_limit"] = ssm.limits("dt_limit")
        else:
            ssm.only("is_mimo", False, default=False)
            if self.config.definition is None:
                raise CheckpointError(
                    "config.json: ssm_cfg.layer: given 'Mamba3', of which two releases differ; allowed: with the "
                    "setting definition: softplus (mamba-ssm 2.3.2) | heavy_tail (mamba from June 2026)"
                )
            found = {"definition": self.config.definition, "output_norm": ssm.flag("is_outproj_norm", False)}
            found["rope_fraction"] = ssm.number("rope_fraction", 0.5)
            found["A_floor"] = ssm.number("A_floor", 1e-4)
        found |= {ours: ssm.whole(key, least=1) for key, ours in names.items() if key in ssm.mapping}
        if "expand" in ssm.mapping:
            found["expand"] = ssm.number("expand")
        if mixer != "mamba3":
            found["d_conv"] = ssm.whole("d_conv", 4, least=1)
            found |= {"bias": ssm.flag("bias", False), "conv_bias": ssm.flag("conv_bias", True)}
        ssm.no_others(RUNTIME)
        return found

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        places = dict(_norm("backbone.norm_f", "norm", config))
        places["backbone.embedding.weight"] = Place("embedding.weight")
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"backbone.layers.{i}.", f"blocks.{i}."
            places |= _norm(f"{theirs}norm", f"{ours}norm", config)
            places |= mixer_places(layer, f"{theirs}mixer.", f"{ours}mixer.")
            if layer.mlp is not None:
                places |= _norm(f"{theirs}norm2", f"{ours}norm2", config)
                places[f"{theirs}mlp.fc1.weight"] = Place(f"{ours}mlp.up_gate.weight")
                places[f"{theirs}mlp.fc2.weight"] = Place(f"{ours}mlp.out_proj.weight")
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return {"lm_head.weight": "backbone.embedding.weight"} if config.tie_embeddings else {}

    def ignored(self, name: str) -> bool:
        """See Format."""
        return name.endswith("rotary_emb.inv_freq")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        layers, (d_model, d_ff, vocab_size) = parts_of(config).layers, resolved_sizes(config)
        has_mlp = any(layer.mlp is not None for layer in layers)
        attention = [i for i, layer in enumerate(layers) if isinstance(layer.config, AttentionConfig)]
        ssm = next((layer.config for i, layer in enumerate(layers) if i not in attention), None)
        return {
            "d_model": d_model,
            "d_intermediate": d_ff if has_mlp else 0,
            "n_layer": len(layers),
            "vocab_size": vocab_size,
            "ssm_cfg": _ssm_cfg(ssm),
            "attn_layer_idx": attention,
            "attn_cfg": _attn_cfg(layers[attention[0]].config, d_model) if attention else {},
            "rms_norm": config.norm.name == "rms",
            "residual_in_fp32": config.residual_in_fp32,
            "fused_add_norm": True,
            "pad_vocab_size_multiple": config.vocab_multiple,
            "tie_embeddings": config.tie_embeddings,
        }


def _attention(keys: Keys, d_model: int) -> dict[str, Any]:
    """Settings of attention, whose defaults are those of their class."""
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


def _attn_cfg(config: Any, d_model: int) -> dict[str, Any]:
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


def _ssm_cfg(config: Any) -> dict[str, Any]:
    """ssm_cfg of a mixer's settings; empty for a model of attention alone, and for mixers that the format lacks."""
    if isinstance(config, Mamba1Config):
        cfg: dict[str, Any] = {"layer": "Mamba1", "dt_rank": "auto" if config.dt_rank is None else config.dt_rank}
    elif isinstance(config, Mamba2Config):
        low, high = config.dt_limit
        cfg = {"layer": "Mamba2", "headdim": config.head_dim, "ngroups": config.n_groups}
        cfg |= {} if (low, high) == (0.0, None) else {"dt_limit": [low, high]}
    elif isinstance(config, Mamba3Config):
        cfg = {"layer": "Mamba3", "headdim": config.head_dim, "ngroups": config.n_groups, "A_floor": config.A_floor}
        cfg |= {"rope_fraction": config.rope_fraction, "is_outproj_norm": config.output_norm, "is_mimo": False}
        return {**cfg, "d_state": config.d_state, "expand": _whole(config.expand)}
    else:
        return {}
    cfg |= {"d_state": config.d_state, "d_conv": config.d_conv, "expand": _whole(config.expand)}
    return {**cfg, "bias": config.bias, "conv_bias": config.conv_bias}


def _whole(x: float) -> int | float:
    return int(x) if x == int(x) else x


def _norm(theirs: str, ours: str, config: ModelConfig) -> dict[str, Place]:
    parts = ("weight", "bias") if config.norm.name == "layer" else ("weight",)
    return {f"{theirs}.{part}": Place(f"{ours}.{part}") for part in parts}


def mixer_places(layer: LayerParts, theirs: str, ours: str) -> dict[str, Place]:
    """The places of a mixer's tensors, by their full names."""
    return {theirs + name: place for name, place in _mixer(layer, ours)}


def _mixer(layer: LayerParts, ours: str) -> Iterator[tuple[str, Place]]:
    config: Any = layer.config
    for theirs, own in NAMES[layer.kind].items():
        yield theirs, Place(ours + own)
    yield "in_proj.weight", Place(f"{ours}in_proj.weight")
    yield "out_proj.weight", Place(f"{ours}out_proj.weight")
    if layer.kind == "mamba3":
        for name in ("B_bias", "C_bias"):
            yield name, Place(ours + name, ones=(1,))
        if config.output_norm:
            yield "norm.weight", Place(f"{ours}norm_weight")
        return
    has_conv, conv_bias, out_bias = True, True, config.bias
    if layer.kind == "attention":
        has_conv, out_bias = config.d_conv > 0, config.has_output_bias
    else:
        conv_bias = config.conv_bias
    if config.bias:
        yield "in_proj.bias", Place(f"{ours}in_proj.bias")
    if out_bias:
        yield "out_proj.bias", Place(f"{ours}out_proj.bias")
    if has_conv:
        yield "conv1d.weight", Place(f"{ours}conv_weight", ones=(1,))
        if conv_bias:
            yield "conv1d.bias", Place(f"{ours}conv_bias")
