"""Checkpoints of flash-linear-attention's models (fla-hub): GLA, Gated DeltaNet, Gated DeltaProduct and
Transformer++, and the first three with layers of attention in between.

Options of its layers that ours lack (feature maps, convolutions in GLA, no gate, ...) are refused.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Format, FormatConfig, Keys, NotCovered, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.mixers.gla import GLAConfig
from lcprobe.models.parts import parts_of, resolved_sizes

KINDS = {"gla": "gla", "gated_deltanet": "gated_deltanet", "gated_deltaproduct": "delta_product",
         "transformer": "attention"}  # fmt: skip
"""Mixers by model_type."""
CLASSES = {"gla": "GLAForCausalLM", "gated_deltanet": "GatedDeltaNetForCausalLM",
           "gated_deltaproduct": "GatedDeltaProductForCausalLM", "transformer": "TransformerForCausalLM"}  # fmt: skip
QK_EPS = 1e-5
"""Epsilon of the norms of queries and keys, which the package does not set."""
GLA_RANK, GLA_TAU = 16, 16.0
"""Those of GLA layers in models."""


class FLA(Format[FormatConfig]):
    """flash-linear-attention's models."""

    Config = FormatConfig
    name = "fla"

    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See Format."""
        return config.get("model_type") in KINDS

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        keys = Keys(config)
        kind, eps, d_model = (
            keys.text("model_type"),
            keys.number("norm_eps", 1e-6),
            keys.whole("hidden_size", least=1),
        )
        for key, covered in {"hidden_act": "swish", "attnres_block_size": None}.items():
            keys.only(key, covered, default=covered)
        own = {"gla": _gla, "gated_deltanet": _delta, "gated_deltaproduct": _delta, "transformer": _transformer}[kind]
        n_layers, mixers = keys.layers(), {KINDS[kind]: own(keys, d_model, eps)}
        attention_at: list[int] = []
        if kind != "transformer" and keys.given("attn") is not None:
            spec = keys.section("attn")
            attention_at = spec.indices("layers", n_layers)
            mixers["attention"] = _attention(spec, d_model, keys.whole("max_position_embeddings", 2048))
        given = keys.given("intermediate_size")
        if given is None:
            ratio = 4 if keys.given("hidden_ratio") is None else keys.number("hidden_ratio")
            d_ff = -(-int(d_model * ratio * 2 / 3) // 256) * 256
        else:
            d_ff = keys.whole("intermediate_size", least=1)
        return {
            "layout": f"{KINDS[kind]}+mlp",
            "n_layers": n_layers,
            "attn_layer_idx": sorted(attention_at) or None,
            "d_model": d_model,
            "d_ff": d_ff,
            "mixers": mixers,
            "norm_eps": eps,
            "vocab_size": keys.whole("vocab_size", least=1),
            "vocab_multiple": 1,
            "tie_embeddings": keys.flag("tie_word_embeddings", False),
        }

    def places(self, config: ModelConfig) -> dict[str, Place]:
        """See Format."""
        d_model, d_ff, _ = resolved_sizes(config)
        places = {"model.embeddings.weight": Place("embedding.weight"), "model.norm.weight": Place("norm.weight")}
        if not config.tie_embeddings:
            places["lm_head.weight"] = Place("head.weight")
        for i, layer in enumerate(parts_of(config).layers):
            theirs, ours = f"model.layers.{i}", f"blocks.{i}"
            places[f"{theirs}.attn_norm.weight"] = Place(f"{ours}.norm.weight")
            places[f"{theirs}.mlp_norm.weight"] = Place(f"{ours}.norm2.weight")
            places |= hf_names.gated_mlp(f"{theirs}.mlp", f"{ours}.mlp", d_ff)
            if isinstance(layer.config, AttentionConfig):
                places |= hf_names.attention(f"{theirs}.attn", f"{ours}.mixer", layer.config, d_model)
            else:
                places |= {
                    f"{theirs}.attn.{name}": place
                    for name, place in layer_places(layer.config, f"{ours}.mixer.", d_model)
                }
        return places

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """See Format: the tied head."""
        return hf_names.tied_head(config, "model.embeddings.weight")

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        (d_model, d_ff, _), layers = resolved_sizes(config), parts_of(config).layers
        kinds = {mixer: kind for kind, mixer in KINDS.items() if kind != "transformer"}
        main = next((layer for layer in layers if layer.kind in kinds), layers[0])
        kind = kinds.get(main.kind, "transformer")
        own: Any = main.config
        found = {
            "architectures": [CLASSES[kind]],
            "model_type": kind,
            **hf_names.common(config),
            "num_hidden_layers": len(layers),
            "intermediate_size": d_ff,
            "hidden_act": "swish",
            "norm_eps": config.norm_eps,
            "attn": None,
            "max_position_embeddings": config.context_length or 2048,
        }
        attention: Any = next((layer.config for layer in layers if layer.kind == "attention"), None)
        if kind == "transformer":
            return (
                found
                if attention is None
                else found | _attention_config(attention, d_model) | {"qk_norm": own.qk_norm}
            )
        if attention is not None:
            at = [i for i, layer in enumerate(layers) if layer.kind == "attention"]
            found["attn"] = {"layers": at, **_attention_config(attention, d_model)}
        w = own.widths(d_model)
        found["num_heads"] = w.n_heads
        if isinstance(own, GLAConfig):
            return found | {"expand_k": own.expand, "expand_v": own.expand_v, "use_output_gate": True}
        found |= {"head_dim": w.head_dim, "expand_v": w.value_dim / w.head_dim, "conv_size": own.d_conv}
        found |= {"allow_neg_eigval": own.negative_eigenvalues, "use_short_conv": True}
        if kind == "gated_deltaproduct":
            return found | {"num_householder": own.n_steps, "use_forget_gate": True, "use_output_gate": True}
        return found | {"num_v_heads": w.n_value_heads, "use_gate": True}


def _gla(keys: Keys, d_model: int, eps: float) -> dict[str, Any]:
    heads = keys.whole("num_heads", 4, least=1)
    refused = {"use_short_conv": False, "use_output_gate": True, "use_gk": True, "use_gv": False, "feature_map": None,
               "clamp_min": None, "elementwise_affine": True, "fuse_norm": True}  # fmt: skip
    for key, covered in refused.items():
        keys.only(key, covered, default=covered)
    keys.only("num_kv_heads", None, heads, default=None)
    expand, expand_v = keys.number("expand_k", 0.5), keys.number("expand_v", 1.0)
    if round(d_model * expand) % heads:
        raise keys.wrong("num_heads", f"a divisor of expand_k x hidden_size ({round(d_model * expand)})")
    width = round(d_model * expand) // heads
    return {
        "head_dim": width,
        "expand": expand,
        "expand_v": expand_v,
        "rank": GLA_RANK,
        "tau": GLA_TAU,
        "norm_eps": eps,
    }


def _delta(keys: Keys, d_model: int, eps: float) -> dict[str, Any]:
    """Gated DeltaNet, and Gated DeltaProduct."""
    product = keys.text("model_type") == "gated_deltaproduct"
    heads, head_dim = keys.whole("num_heads", 6, least=1), keys.whole("head_dim", 256, least=1)
    keys.only("use_short_conv", True, default=True)
    keys.only("use_output_gate" if product else "use_gate", True, default=True)
    value_heads = heads if keys.given("num_v_heads") is None else keys.whole("num_v_heads", least=1)
    if product:
        keys.only("use_forget_gate", True, default=False)
    else:
        keys.only("output_gate_activation", "swish", "silu", default="swish")
    if value_heads % heads:
        raise keys.wrong("num_v_heads", f"a multiple of num_heads ({heads})", NotCovered)
    settings = {
        "head_dim": head_dim,
        "expand": heads * head_dim / d_model,
        "expand_v": value_heads * int(head_dim * keys.number("expand_v", 2.0)) / d_model,
        "value_heads": value_heads // heads,
        "d_conv": keys.whole("conv_size", 4, least=2),
        "negative_eigenvalues": keys.flag("allow_neg_eigval", False),
        "norm_eps": eps,
    }
    return {**settings, "n_steps": keys.whole("num_householder", 1, least=1)} if product else settings


def _transformer(keys: Keys, d_model: int, eps: float) -> dict[str, Any]:
    return {**_attention(keys, d_model, None), "qk_norm": keys.flag("qk_norm", False), "norm_eps": QK_EPS}


def _attention(keys: Keys, d_model: int, longest: int | None) -> dict[str, Any]:
    heads, kv_heads, window = (
        keys.whole("num_heads", 32, least=1),
        keys.given("num_kv_heads"),
        keys.given("window_size"),
    )
    base = keys.given("rope_theta")
    if d_model % heads:
        raise keys.wrong("num_heads", f"a divisor of hidden_size ({d_model})")
    return {
        "n_heads": heads,
        "n_kv_heads": heads if kv_heads is None else keys.whole("num_kv_heads", least=1),
        "head_dim": d_model // heads,
        "bias": keys.flag("qkv_bias", False),
        "output_bias": False,
        "window": None if window is None else keys.whole("window_size", least=1),
        "positional": {"type": "rope", "base": 10000.0 if base is None else keys.number("rope_theta")},
    }


def _attention_config(config: AttentionConfig, d_model: int) -> dict[str, Any]:
    n_heads, n_kv_heads = config.heads(d_model)
    return {
        "num_heads": n_heads,
        "num_kv_heads": n_kv_heads,
        "qkv_bias": config.bias,
        "window_size": config.window,
        "rope_theta": hf_names.rope_parameters(config.positional)["rope_theta"],
    }


def layer_places(config: Any, ours: str, d_model: int) -> Iterator[tuple[str, Place]]:
    """The places of the tensors of one of the package's layers, by their names in it. config: of our mixer."""
    w = config.widths(d_model)
    yield "o_proj.weight", Place(f"{ours}out_proj.weight")
    if isinstance(config, GLAConfig):
        widths = {
            "q_proj": w.keys,
            "k_proj": w.keys,
            "v_proj": w.values,
            "g_proj": w.values,
            "gk_proj.0": config.rank,
        }
        yield "gk_proj.1.weight", Place(f"{ours}decay_proj.weight")
        yield "gk_proj.1.bias", Place(f"{ours}decay_proj.bias")
        yield "g_norm_swish_gate.weight", Place(f"{ours}norm_weight")
    else:
        n, heads = w.steps, w.n_value_heads
        convolved = {"q_conv1d": w.keys, "k_conv1d": n * w.keys, "v_conv1d": n * w.values}
        for name, place in hf_names.joint("", f"{ours}conv_weight", convolved).items():
            yield name, Place(place.parameter, place.rows, ones=(1,))
        widths = {"q_proj": w.keys, "k_proj": n * w.keys, "v_proj": n * w.values, "g_proj": w.values}
        widths |= {"b_proj": n * heads, "a_proj": heads}
        yield "o_norm.weight", Place(f"{ours}norm_weight")
        for name in ("A_log", "dt_bias"):
            yield name, Place(ours + name)
    yield from hf_names.joint("", f"{ours}in_proj.weight", widths).items()
