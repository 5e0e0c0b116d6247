"""Settings of models, of matching and of kernels. Without torch, so that `--help` and the first checks start fast."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from lcprobe.choices import ByName, Choice
from lcprobe.errors import require
from lcprobe.lengths import MAX_TOKENS
from lcprobe.models.layout import MAX_LAYERS, layers_of
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mlps import MLPS
from lcprobe.models.norms import NORMS
from lcprobe.models.positional import POSITIONAL, POSITIONS
from lcprobe.models.positional.schedule import ENCODING_PATTERN, EncodingPattern
from lcprobe.schema import Total

MAX_SIZE = 1 << 24
"""Widths and vocabularies, at most."""


@dataclass(frozen=True)
class ModelConfig:
    """A language model: embedding, blocks of (mixer, optional MLP), final norm, head."""

    layout: str = "attention+mlp x 2"
    """The blocks, such as `mamba2 x 4, attention+mlp, mamba2 x 4`; a name is an entry of mixers or a registered
    mixer."""
    n_layers: int | Literal["solve"] | None = None
    """Number of blocks to which the layout is repeated or cut; null: the layout as written; solve: solved by
    matching."""
    attn_layer_idx: list[int] | None = None
    """Blocks, counted from 0, whose mixer is the one called `attention` instead of the layout's."""
    d_model: int | None = None
    """Width of the residual stream; null: solved by matching."""
    d_ff: int | None = None
    """Inner width of the MLPs; null: solved by matching."""
    mixers: Annotated[dict[str, Choice], ByName(MIXERS)] = field(default_factory=dict)
    """Settings of mixers by the name used in the layout: `{local: {type: attention, window: 128}}`."""
    mlp: Annotated[Choice, MLPS] = field(default_factory=lambda: MLPS.convert("swiglu", "model.mlp"))
    """MLP of the blocks that have `+mlp` in the layout: swiglu | geglu | relu2 | none, or with settings,
    `{type: geglu, bias: true}`."""
    norm: Annotated[Choice, NORMS] = field(default_factory=lambda: NORMS.convert("rms", "model.norm"))
    """Norm before each mixer and MLP and before the head: rms | zero_centred_rms | layer."""
    sandwich_norm: bool = False
    """Norm the output of each mixer and MLP too, before it is added to the residual stream (Gemma 2)."""
    parallel: Literal["mean", "sum"] = "mean"
    """Combination of mixers in parallel: mean of their normed outputs under one output projection (Hymba; equal inner
    widths), or sum of their projected outputs (Falcon-H1)."""
    embedding_scale: float | Literal["sqrt_d_model", "sqrt_d_model_bf16"] = 1.0
    """Factor on the embedding: a number, sqrt(d_model), or sqrt(d_model) rounded to bfloat16 (Gemma, Griffin)."""
    embedding_norm: bool = False
    """Norm the embedding before the first block (RWKV)."""
    logit_soft_cap: float | None = None
    """Logits are c * tanh(logits / c) for this c, in the loss too (Gemma 2, Griffin: 30); null: they are left as they
    are."""
    positional: Annotated[EncodingPattern | None, ENCODING_PATTERN] = None
    """Positional encoding of all attention layers: `rope`, `{type: rope, base: 500000}`, or a pattern over them,
    `[rope+window512 x 3, none] x 6`; null: the encoding set in model.mixers, by default rope."""
    encodings: dict[str, Annotated[Choice, POSITIONAL]] = field(default_factory=dict)
    """Encodings by a name used in `positional`: `{far: {type: rope, base: 1000000}}`."""
    positions: Annotated[Choice | None, POSITIONS] = None
    """Positions that are drawn in training: `{type: randomized, max_length: 2048}` (at evaluation too, unless
    `at_test: counted`), `{type: pose, max_length: 2048}`; null: positions are counted."""
    context_length: int | None = None
    """Training length that encodings are built for; null: train.context_length."""
    vocab_size: int | None = None
    """Number of tokens in the vocabulary; null: the tokenizer's."""
    vocab_multiple: int = 16
    """Rows of the embedding are padded to a multiple of this."""
    tie_embeddings: bool = True
    """Share weights between the head and the embedding."""
    residual_in_fp32: bool = True
    """Keep the residual stream in float32 under mixed precision."""
    norm_eps: float = 1e-5
    """Epsilon of the norms, added to the mean square or the variance."""
    initializer_range: float = 0.02
    """Standard deviation of the embedding at initialisation."""

    def embedding_factor(self) -> float:
        """The number of `embedding_scale`. Raises ConfigError where it needs a d_model that is not known."""
        if not isinstance(self.embedding_scale, str):
            return self.embedding_scale
        require("model.d_model", self.d_model, self.d_model is not None, "a number, or match.budget to solve it")
        root = math.sqrt(self.d_model or 1)
        return root if self.embedding_scale == "sqrt_d_model" else in_bfloat16(root)

    def check(self, at: str) -> None:
        """Raises ConfigError for sizes out of range and a layout that cannot be parsed."""
        for name in ("d_model", "d_ff", "vocab_size"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or 1 <= value <= MAX_SIZE, f"1 .. {MAX_SIZE} or null")
        n_layers = self.n_layers
        fits = not isinstance(n_layers, int) or 1 <= n_layers <= MAX_LAYERS
        require(f"{at}.n_layers", n_layers, fits, f"1 .. {MAX_LAYERS}, solve or null")
        multiple = self.vocab_multiple
        require(f"{at}.vocab_multiple", multiple, 1 <= multiple <= MAX_SIZE, f"1 .. {MAX_SIZE}")
        scale, cap = self.embedding_scale, self.logit_soft_cap
        require(f"{at}.embedding_scale", scale, isinstance(scale, str) or scale > 0, "> 0")
        require(f"{at}.logit_soft_cap", cap, cap is None or cap > 0, "> 0 or null")
        require(f"{at}.norm_eps", self.norm_eps, self.norm_eps > 0, "> 0")
        require(f"{at}.initializer_range", self.initializer_range, self.initializer_range > 0, "> 0")
        length = self.context_length
        fits = length is None or 2 <= length <= MAX_TOKENS
        require(f"{at}.context_length", length, fits, f"2 .. {MAX_TOKENS} or null")
        given = n_layers if isinstance(n_layers, int) else None
        layers_of(self.layout, given, self.attn_layer_idx, at, MIXERS)


def in_bfloat16(x: float) -> float:
    """A positive number rounded to bfloat16, eight significant bits, ties to even."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(mantissa * 256), exponent - 8)


AMOUNTS = {"params": "parameters", "flops": "FLOPs per token", "state_bytes": "bytes of state"}
"""Words for the values of `match.by`."""


@dataclass(frozen=True)
class MatchConfig:
    """How the runs of a study are matched: models in parameters, FLOPs or state, training lengths in their budget."""

    by: Literal["params", "flops", "state_bytes"] = "params"
    """What models have in common: parameters, embedding included; forward FLOPs per token at the training length,
    head included; or bytes of state and of full windows, which needs a state that does not grow with length."""
    budget: Annotated[int | str | None, Total(int | str)] = None
    """What every model has of `by` (1e6 parameters), or the name of the model that sets it; null: sizes are not
    solved."""
    target: float = 0.01
    """Relative difference from the budget that the solver accepts."""
    refuse_above: float = 0.02
    """Relative difference between models above which a study does not start."""
    allow_mismatch: bool = False
    """Start even if models differ by more than refuse_above; the report flags it."""
    d_model_multiple: int | None = None
    """Solved values of d_model are multiples of this; null: 8 below 20 M parameters, 40 M FLOPs or 4 MB, else 128."""
    d_ff_multiple: int | None = None
    """Solved values of d_ff are multiples of this; null: 8 below 20 M parameters, 40 M FLOPs or 4 MB, else 64."""
    aspect: float = 40.0
    """Preferred ratio of d_model to the number of mixer and MLP layers (2560 / 64 at 2.7 B), where sizes are
    solved."""
    training: Literal["tokens", "steps", "flops"] = "tokens"
    """What runs of one architecture have in common at all training lengths of a study: their training tokens, their
    optimiser steps, or their training FLOPs. train.tokens is the budget at the shortest length."""
    batch: Literal["tokens", "rows"] = "tokens"
    """What a step has in common at all training lengths: train.batch_tokens, or the rows that it gives at the
    shortest length."""

    @property
    def amount(self) -> str:
        """What is matched, in words."""
        return AMOUNTS[self.by]

    def check(self, at: str) -> None:
        """Raises ConfigError for an impossible budget or tolerance."""
        if isinstance(self.budget, int):
            require(f"{at}.budget", self.budget, self.budget >= 1000, ">= 1000, a model's name, or null")
        require(f"{at}.target", self.target, 0 < self.target < 1, "0 < target < 1")
        require(f"{at}.refuse_above", self.refuse_above, 0 < self.refuse_above < 1, "0 < refuse_above < 1")
        require(f"{at}.aspect", self.aspect, self.aspect > 0, "> 0")
        for name in ("d_model_multiple", "d_ff_multiple"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or 1 <= value <= MAX_SIZE, f"1 .. {MAX_SIZE} or null")


@dataclass(frozen=True)
class KernelsConfig:
    """Choice of the kernels' implementation."""

    backend: Literal[
        "auto", "triton", "torch", "mamba_ssm", "causal_conv1d", "flash_attn", "flash_attn_4", "fla", "flex"
    ] = "auto"
    """auto picks by device; a named backend is used by the ops that have it, and refused where it cannot run."""
    float32: Literal["tf32x3", "tf32"] = "tf32x3"
    """How Triton kernels multiply float32: by three TF32 products, which keep nearly all bits, or one of ten bits."""
