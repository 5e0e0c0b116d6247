"""Every encoding and extension method that a package implements, against that package.

The peer's code computes the outputs of attention where it can; PyTorch's attention continues where it stops at
queries and keys. Peers keep tables in float32 in any dtype, so many of their float64 rows are no closer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.choices import choose
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.rotary import RescaledFrequencies
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.alibi import slopes
from lcprobe.models.positional.t5 import bucket
from validation.oracles.cases import (
    CONTEXT,
    FACTOR,
    SHAPE,
    SINGLE,
    Comparison,
    N,
    build_encoding,
    equation_inputs,
    label,
    method_outputs,
    outputs,
    random_inputs,
    tolerance_for,
)  # fmt: skip
from validation.oracles.encodings import directions


def heads_first(t: Tensor) -> Tensor:
    """(batch, n, heads, d), keys or queries -> (batch, n_heads, n, d), as peers have them."""
    return t.repeat_interleave(SHAPE.n_heads // t.shape[2], 2).transpose(1, 2)


def interleaved(t: Tensor) -> Tensor:
    """From half-split pairs to interleaved ones, the convention of most peers."""
    return t.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def attended(qk: Sequence[Tensor], v: Tensor) -> Tensor:
    """PyTorch's causal attention of a peer's queries and keys, (batch, n_heads, n, d) -> (batch, n, n_heads, d)."""
    return F.scaled_dot_product_attention(qk[0], qk[1], v, is_causal=True, scale=SHAPE.head_dim**-0.5).transpose(1, 2)


def x_transformers(dtype: torch.dtype) -> Iterator[Comparison]:
    """Outputs of x-transformers' attention, with its rotations, biases and embeddings."""
    peer, attend = import_module("x_transformers.x_transformers"), import_module("x_transformers.attend").Attend
    inputs, d = random_inputs(dtype), SHAPE.head_dim
    q, k, v = (heads_first(t) for t in inputs[:3])

    def attention(q: Tensor, k: Tensor, bias: Tensor | None = None, cope: Any = None) -> Tensor:
        # qk_norm: its softmax in the dtype of the scores
        return attend(causal=True, qk_norm=True, scale=d**-0.5, cope=cope)(q, k, v, attn_bias=bias)[0].transpose(1, 2)

    def rotary(**settings: Any) -> Tensor:
        freqs, fade = peer.RotaryEmbedding(d, **settings).to(dtype).forward_from_seq_len(N)
        turned_q, turned_k = (
            peer.apply_rotary_pos_emb(interleaved(t), freqs, s) for t, s in ((q, fade), (k, fade**-1))
        )
        return attention(turned_q, turned_k)

    yield Comparison("rope", "outputs", outputs(build_encoding({"type": "rope"}, dtype), inputs), rotary(), SINGLE)
    yield Comparison(
        "xpos", "outputs", outputs(build_encoding({"type": "xpos"}, dtype), inputs), rotary(use_xpos=True), SINGLE
    )
    yield Comparison(
        "pi", "outputs", method_outputs({"type": "pi"}, dtype), rotary(interpolation_factor=FACTOR), SINGLE
    )
    yield Comparison(
        "ntk", "outputs", method_outputs({"type": "ntk"}, dtype), rotary(base_rescale_factor=FACTOR), SINGLE
    )

    e = build_encoding({"type": "pope"}, dtype)
    polar = peer.PolarEmbedding(d, SHAPE.n_heads).to(dtype)
    polar.learned_bias.data.copy_(e.phase.repeat_interleave(SHAPE.n_heads // SHAPE.n_kv_heads, 0)[:, None])
    freqs, phase = polar(torch.arange(N))
    theirs = attention(peer.apply_polar_pos_emb(q, freqs), peer.apply_polar_pos_emb(k, freqs + phase))
    yield Comparison("pope", "outputs", outputs(e, inputs), theirs, SINGLE)

    bias = peer.AlibiPositionalBias(SHAPE.n_heads).to(dtype)(N, N)
    yield Comparison(
        "alibi",
        "outputs",
        outputs(build_encoding({"type": "alibi"}, dtype), inputs),
        attention(q, k, bias),
        tolerance_for(dtype),
    )

    e = build_encoding({"type": "t5"}, dtype)
    table = peer.RelativePositionBias(1.0, True, e.config.n_buckets, e.config.max_distance, SHAPE.n_heads).to(dtype)
    table.relative_attention_bias.weight.data.copy_(e.weight.T)
    yield Comparison("t5", "outputs", outputs(e, inputs), attention(q, k, table(N, N)), tolerance_for(dtype))

    for name, sign in (("fox", 1), ("cable", -1)):  # CABLE's penalty is FoX's with negated gates
        e, gates = (
            build_encoding({"type": name}, dtype),
            peer.DataDependentAlibi(SHAPE.d_model, SHAPE.n_heads).to(dtype),
        )
        gates.to_forget_gates[0].weight.data.copy_(sign * e.gate_weight)
        gates.to_forget_gates[0].bias.data.copy_(sign * e.gate_bias)
        yield Comparison(name, "outputs", outputs(e, inputs), attention(q, k, gates(inputs[3])), tolerance_for(dtype))

    e = build_encoding({"type": "cope", "max_position": 16}, dtype)
    cope = peer.CoPE(d, SHAPE.n_heads, e.config.max_position).to(dtype)
    cope.pos_emb.data.copy_(e.embedding)
    yield Comparison("cope", "outputs", outputs(e, inputs), attention(q, k, cope=cope), tolerance_for(dtype))

    e, table = (
        build_encoding({"type": "learned", "max_length": N}, dtype),
        peer.AbsolutePositionalEmbedding(SHAPE.d_model, N).to(dtype),
    )
    table.emb.weight.data.copy_(e.rows / table.scale)
    yield Comparison("learned", "embedding", outputs(e, inputs), inputs[3] + table(inputs[3]), tolerance_for(dtype))
    e, waves = build_encoding({"type": "sinusoidal"}, dtype), peer.ScaledSinusoidalEmbedding(SHAPE.d_model).to(dtype)
    waves.scale.data.copy_(e.scale)
    yield Comparison("sinusoidal", "embedding", outputs(e, inputs), inputs[3] + waves(inputs[3]), SINGLE)


def rotary_embedding_torch(dtype: torch.dtype) -> Iterator[Comparison]:
    """rotary-embedding-torch's rotations: plain, xPos, with interpolated positions and with a rescaled base."""
    peer, inputs = import_module("rotary_embedding_torch"), random_inputs(dtype)
    q, k, v = heads_first(interleaved(inputs[0])), heads_first(interleaved(inputs[1])), heads_first(inputs[2])
    for name, settings in (
        ("rope", {}),
        ("pi", {"interpolate_factor": FACTOR}),
        ("ntk", {"theta_rescale_factor": FACTOR}),
    ):
        rotary = peer.RotaryEmbedding(SHAPE.head_dim, **settings).to(dtype)
        ours = (
            outputs(build_encoding({"type": name}, dtype), inputs)
            if name in POSITIONAL
            else method_outputs({"type": name}, dtype)
        )
        theirs = attended([rotary.rotate_queries_or_keys(t) for t in (q, k)], v)
        yield Comparison(name, "outputs", ours, theirs, SINGLE)
    xpos = peer.RotaryEmbedding(SHAPE.head_dim, use_xpos=True).to(dtype)
    ours = outputs(build_encoding({"type": "xpos"}, dtype), inputs)
    yield Comparison("xpos", "outputs", ours, attended(xpos.rotate_queries_and_keys(q, k), v), SINGLE)


def pope_pytorch(dtype: torch.dtype) -> Iterator[Comparison]:
    """PoPE-pytorch's queries and keys."""
    peer, inputs, e = import_module("PoPE_pytorch"), random_inputs(dtype), build_encoding({"type": "pope"}, dtype)
    q, k, v = (heads_first(t) for t in inputs[:3])
    polar = peer.PoPE(SHAPE.head_dim, heads=SHAPE.n_heads).to(dtype)
    polar.bias.data.copy_(e.phase.repeat_interleave(SHAPE.n_heads // SHAPE.n_kv_heads, 0))
    yield Comparison(
        "pope", "outputs", outputs(e, inputs), attended(peer.PoPE.apply_pope_to_qk(polar(N), q, k), v), SINGLE
    )


def flash_linear_attention(dtype: torch.dtype) -> Iterator[Comparison]:
    """flash-linear-attention's naive forms; those of FoX and PaTH compute in float32."""
    fox, stick, path = (
        import_module(f"fla.ops.{name}_attn.naive") for name in ("forgetting", "stickbreaking", "path")
    )
    inputs = random_inputs(dtype)
    q, k, v, x = inputs
    e = build_encoding({"type": "fox"}, dtype)
    log_gates = F.logsigmoid(F.linear(x, e.gate_weight, e.gate_bias))
    for name, window in (("fox", None), ("fox, window 6", 6)):
        theirs = fox.naive_forgetting_attn(q, k, v, log_gates, window_size=window)
        yield Comparison(name, "outputs", outputs(e, inputs, window=window), theirs, SINGLE)
    for current in (False, True):
        kind = {"type": "stick_breaking", "attend_current": current, "remainder": True}
        o, rest = stick.naive_stickbreaking_attn(q, k, v, attend_current=current)
        theirs = o + rest[..., None] * v.repeat_interleave(SHAPE.n_heads // SHAPE.n_kv_heads, 2)
        yield Comparison(
            label(kind), "outputs", outputs(build_encoding(kind, dtype), inputs), theirs, tolerance_for(dtype)
        )
    e = build_encoding({"type": "path"}, dtype)
    w, beta = (t.to(dtype) for t in directions(equation_inputs(e, inputs)))
    theirs = path.naive_path_attn(q, k, v, w, beta, torch.zeros(q.shape[:3]), SHAPE.head_dim**-0.5)
    yield Comparison("path", "outputs", outputs(e, inputs), theirs, SINGLE)


def ropes(pairs: int) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Methods, and their names and settings in transformers' configs."""
    long, short = [1 + 0.4 * i for i in range(pairs)], [1 + 0.1 * i for i in range(pairs)]
    return [
        ({"type": "pi"}, "linear", {}),
        ({"type": "ntk_dynamic"}, "dynamic", {}),
        ({"type": "yarn"}, "yarn", {}),
        ({"type": "yarn", "truncate": False}, "yarn", {"truncate": False}),
        ({"type": "yarn", "a": 2, "b": 16}, "yarn", {"beta_fast": 16, "beta_slow": 2}),
        ({"type": "llama3"}, "llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ({"type": "ntk_by_parts", "a": 2, "b": 9}, "llama3", {"low_freq_factor": 2.0, "high_freq_factor": 9.0}),
        (
            {"type": "longrope", "long": long, "short": short},
            "longrope",
            {"long_factor": long, "short_factor": short},
        ),
    ]


def transformers_ropes(dtype: torch.dtype) -> Iterator[Comparison]:
    """LlamaRotaryEmbedding with each of its rope types; it keeps its tables in float32."""
    llama = import_module("transformers.models.llama.modeling_llama")
    inputs = random_inputs(dtype)
    q, k, v = (heads_first(t) for t in inputs[:3])

    def theirs(kind: str, **more: Any) -> Tensor:
        rotary = llama.LlamaRotaryEmbedding(_llama_config(kind, CONTEXT, SHAPE.head_dim, **more))
        cos, sin = rotary(v, torch.arange(N)[None])
        return attended(llama.apply_rotary_pos_emb(q, k, cos, sin), v)

    yield Comparison(
        "rope (default)",
        "outputs",
        outputs(build_encoding({"type": "rope"}, dtype), inputs),
        theirs("default"),
        SINGLE,
    )
    for fraction in (0.25, 0.5, 0.75):
        ours = outputs(build_encoding({"type": "prope", "fraction": fraction}, dtype), inputs)
        want = theirs("proportional", partial_rotary_factor=fraction)
        yield Comparison(f"prope fraction={fraction} (proportional)", "outputs", ours, want, SINGLE)
    for kind, name, more in ropes(SHAPE.head_dim // 2):
        want = theirs(name, factor=FACTOR, **more)
        yield Comparison(f"{label(kind)} ({name})", "outputs", method_outputs(kind, dtype), want, SINGLE)


def _llama_config(kind: str, length: int, head_dim: int, base: float = 10000.0, **more: Any) -> Any:
    rope, heads, longest = {"rope_type": kind, "rope_theta": base, **more}, SHAPE.n_heads, length
    if kind in ("yarn", "llama3", "longrope"):  # for the others, the longest is the training length
        rope["original_max_position_embeddings"], longest = length, math.ceil(length * more["factor"])
    make, sizes = (
        import_module("transformers").LlamaConfig,
        {"hidden_size": heads * head_dim, "num_attention_heads": heads},
    )
    return make(**sizes, head_dim=head_dim, max_position_embeddings=longest, rope_parameters=rope)


def transformers_frequencies(dtype: torch.dtype) -> Iterator[Comparison]:
    """Radians per token and the factor on cos and sin, at three factors, two bases and three lengths; theirs are
    float32.
    """
    utils, context, shape = import_module("transformers.modeling_rope_utils"), 2048, replace(SHAPE, head_dim=64)
    for kind, name, more in ropes(shape.head_dim // 2) if dtype == torch.float64 else []:
        ours, theirs = [], []
        for factor, base in ((f, b) for f in (1.5, 4.0, 32.0) for b in (10000.0, 500000.0)):
            for length in (context // 2, context, 4 * context):
                choice, e = (
                    choose(EXTENSIONS, kind, "pe.extend"),
                    build_encoding({"type": "rope", "base": base}, shape=shape),
                )
                theta, scale = RescaledFrequencies(choice.cls, choice.config, context, factor)(
                    e.frequencies(torch.device("cpu")), length
                )
                config = _llama_config(name, context, shape.head_dim, base, factor=factor, **more)
                want, want_scale = utils.ROPE_INIT_FUNCTIONS[name](config, torch.device("cpu"), length)
                ours.append(torch.cat([theta, torch.tensor([scale], dtype=torch.float64)]))
                theirs.append(torch.cat([want.double(), torch.tensor([want_scale], dtype=torch.float64)]))
        a, b = torch.stack(ours), torch.stack(theirs)
        yield Comparison(f"{label(kind)} ({name})", "frequencies, factor", a, b, 1.2e-7)  # a rounding of float32 at 1
        yield Comparison(f"{label(kind)} ({name})", "their logarithms", a.log(), b.log(), 2e-6)


def transformers_biases(dtype: torch.dtype) -> Iterator[Comparison]:
    """BLOOM's and MPT's slopes for several numbers of heads, and T5's buckets of distances up to 100,000."""
    bloom, mpt, t5 = (import_module(f"transformers.models.{name}.modeling_{name}") for name in ("bloom", "mpt", "t5"))
    for heads in (4, 8, 12, 20, 32) if dtype == torch.float64 else ():
        theirs = bloom.build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]
        yield Comparison(f"alibi, {heads} heads (bloom)", "slopes", slopes(heads), theirs, 1e-7)
        theirs, ours = -mpt.build_mpt_alibi_tensor(heads, 2)[:, 0, 0], slopes(heads)
        if not math.log2(heads).is_integer():  # the same slopes, in an order of their own
            theirs, ours = theirs.sort().values, ours.sort().values
        yield Comparison(f"alibi, {heads} heads (mpt)", "slopes", ours, theirs, 1e-7)
    d = torch.arange(100_001)
    for n_buckets, farthest in ((32, 128), (64, 256), (16, 1000)) if dtype == torch.float64 else ():
        theirs = t5.T5Attention._relative_position_bucket(-d, False, n_buckets, farthest)
        yield Comparison(
            f"t5, {n_buckets} buckets to {farthest}", "buckets", bucket(d, n_buckets, farthest), theirs, 0.0
        )
