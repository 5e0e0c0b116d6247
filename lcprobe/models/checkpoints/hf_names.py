"""Names that transformers' models share: norms, embedding, attention and gated MLPs of its LLaMA-like classes."""

from collections.abc import Mapping
from typing import Any

from lcprobe.models.checkpoints.contract import Keys, NotCovered, Place
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.parts import padded_vocab


def outer(config: ModelConfig, final_norm: str = "model.norm") -> dict[str, Place]:
    """Embedding, final norm and, where it is not tied, the head."""
    found = {"model.embed_tokens.weight": Place("embedding.weight"), f"{final_norm}.weight": Place("norm.weight")}
    return found if config.tie_embeddings else {**found, "lm_head.weight": Place("head.weight")}


def tied_head(config: ModelConfig, embedding: str = "model.embed_tokens.weight") -> dict[str, str]:
    """The head as a copy of the embedding, where it is tied: files may have it."""
    return {"lm_head.weight": embedding} if config.tie_embeddings else {}


def gated_mlp(theirs: str, ours: str, d_ff: int, bias: bool = False) -> dict[str, Place]:
    """up_proj, gate_proj and down_proj; up and gate are one matrix of ours."""
    found = {}
    for part in ("weight", "bias") if bias else ("weight",):
        found[f"{theirs}.up_proj.{part}"] = Place(f"{ours}.up_gate.{part}", slice(0, d_ff))
        found[f"{theirs}.gate_proj.{part}"] = Place(f"{ours}.up_gate.{part}", slice(d_ff, 2 * d_ff))
        found[f"{theirs}.down_proj.{part}"] = Place(f"{ours}.out_proj.{part}")
    return found


def joint(theirs: str, ours: str, widths: Mapping[str, int], part: str = "weight") -> dict[str, Place]:
    """Linear maps that are one matrix of ours, side by side. theirs: what their names begin with; widths: rows of
    each by name, in our order; part: weight or bias."""
    found, first = {}, 0
    for name, width in widths.items():
        found[f"{theirs}{name}.{part}"] = Place(ours, slice(first, first + width))
        first += width
    return found


def attention(theirs: str, ours: str, config: AttentionConfig, d_model: int) -> dict[str, Place]:
    """q_proj, k_proj, v_proj and o_proj, with biases and norms of queries and keys where the mixer has them."""
    n_heads, n_kv_heads = config.heads(d_model)
    q, kv = n_heads * config.head_dim, n_kv_heads * config.head_dim
    found = {f"{theirs}.o_proj.weight": Place(f"{ours}.out_proj.weight")}
    for part in ("weight", "bias") if config.bias else ("weight",):
        found[f"{theirs}.q_proj.{part}"] = Place(f"{ours}.in_proj.{part}", slice(0, q))
        found[f"{theirs}.k_proj.{part}"] = Place(f"{ours}.in_proj.{part}", slice(q, q + kv))
        found[f"{theirs}.v_proj.{part}"] = Place(f"{ours}.in_proj.{part}", slice(q + kv, q + 2 * kv))
    if config.has_output_bias:
        found[f"{theirs}.o_proj.bias"] = Place(f"{ours}.out_proj.bias")
    if config.qk_norm:
        found[f"{theirs}.q_norm.weight"] = Place(f"{ours}.q_norm_weight")
        found[f"{theirs}.k_norm.weight"] = Place(f"{ours}.k_norm_weight")
    return found


def rope(keys: Keys, rotated: float = 1.0) -> dict[str, Any] | str:
    """The encoding of all attention layers, from rope_parameters, or from rope_theta and rope_scaling of versions
    before 5. rotated: the part of a head that is, where nothing says it. Raises NotCovered for rescaled
    frequencies."""
    parameters, scaling = keys.section("rope_parameters"), keys.section("rope_scaling")
    for one in (parameters, scaling):
        for name in ("rope_type", "type"):
            one.only(name, "default", default="default")
    base = parameters.number("rope_theta", keys.number("rope_theta", 10000.0))
    fraction = parameters.number("partial_rotary_factor", keys.number("partial_rotary_factor", rotated))
    return {"type": "rope", "base": base, "fraction": fraction}


def rope_parameters(encoding: Any) -> dict[str, Any]:
    """rope_parameters of one of our encodings; those of RoPE where it is another one, which is then refused."""
    if encoding.name != "rope":
        return {"rope_type": "default", "rope_theta": 10000.0}
    found = {"rope_type": "default", "rope_theta": encoding.config.base}
    fraction = encoding.config.fraction
    return found if fraction == 1 else {**found, "partial_rotary_factor": fraction}


def time_step_limit(limit: tuple[float, float | None]) -> list[float]:
    """time_step_limit of one of ours, in which None is no upper limit."""
    low, high = limit
    return [low, float("inf") if high is None else high]


def common(config: ModelConfig) -> dict[str, Any]:
    """Keys of config.json that all of these classes have."""
    return {
        "vocab_size": padded_vocab(config),
        "hidden_size": config.d_model,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def unquantised(keys: Keys) -> None:
    """Raises NotCovered for quantised weights."""
    if keys.given("quantization_config"):
        raise keys.wrong("quantization_config", "null", NotCovered)
