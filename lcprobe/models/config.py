"""What can be set about a model. Imports no torch: `--help` and the first checks read this file in milliseconds."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lcprobe.choices import ByName, Choice
from lcprobe.errors import require
from lcprobe.models.layout import layers_of
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL, POSITIONS
from lcprobe.models.positional.schedule import ENCODING_PATTERN, EncodingPattern


@dataclass(frozen=True)
class ModelConfig:
    """A language model: embedding, blocks of (mixer, optional MLP), final norm, head."""

    layout: str = "attention+mlp x 2"
    """Blocks, such as `mamba2 x 4, attention+mlp, mamba2 x 4`; a name is an entry of mixers or a registered mixer."""
    n_layers: int | Literal["solve"] | None = None
    """Repeat (or cut) the layout to this many blocks; null: the layout as written; solve: found by matching."""
    attn_layer_idx: list[int] | None = None
    """Blocks that use the mixer called `attention` instead of what the layout says, counted from 0."""
    d_model: int | None = None
    """Width of the residual stream; null: solved by matching."""
    d_ff: int | None = None
    """Width of the SwiGLU MLPs; null: solved by matching."""
    mixers: Annotated[dict[str, Choice], ByName(MIXERS)] = field(default_factory=dict)
    """Settings of mixers by the name used in the layout: `{local: {type: attention, window: 128}}`."""
    positional: Annotated[EncodingPattern | None, ENCODING_PATTERN] = None
    """Positional encoding of all attention layers: `rope`, `{type: rope, base: 500000}`, or a pattern over them,
    `[rope+window512 x 3, none] x 6`; null: what model.mixers says, rope unless it says otherwise."""
    encodings: dict[str, Annotated[Choice, POSITIONAL]] = field(default_factory=dict)
    """Encodings by a name used in `positional`: `{far: {type: rope, base: 1000000}}`."""
    positions: Annotated[Choice | None, POSITIONS] = None
    """Positions that training draws: `{type: randomized, max_length: 2048}` (drawn at evaluation too, or `at_test: counted`),
    `{type: pose, max_length: 2048}`; null: counted."""
    context_length: int | None = None
    """What encodings may know of the training length; null: train.context_length."""
    vocab_size: int | None = None
    """Tokens; null: the tokenizer's."""
    vocab_multiple: int = 16
    """The embedding is padded to a multiple of this."""
    tie_embeddings: bool = True
    """The head shares the embedding's weights."""
    residual_in_fp32: bool = True
    """Keep the residual stream in float32 under mixed precision."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    initializer_range: float = 0.02
    """Standard deviation of the embedding at initialisation."""

    def check(self, at: str) -> None:
        """Rules between values. Raises ConfigError at the first that does not hold."""
        for name in ("d_model", "d_ff", "vocab_size"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or value >= 1, ">= 1 or null")
        n_layers = self.n_layers
        require(f"{at}.n_layers", n_layers, not isinstance(n_layers, int) or n_layers >= 1, ">= 1, solve or null")
        require(f"{at}.vocab_multiple", self.vocab_multiple, self.vocab_multiple >= 1, ">= 1")
        require(f"{at}.norm_eps", self.norm_eps, self.norm_eps > 0, "> 0")
        require(f"{at}.initializer_range", self.initializer_range, self.initializer_range > 0, "> 0")
        length = self.context_length
        require(f"{at}.context_length", length, length is None or length >= 2, ">= 2 or null")
        layers_of(self.layout, n_layers if isinstance(n_layers, int) else None, self.attn_layer_idx, at)


@dataclass(frozen=True)
class MatchConfig:
    """How the models of a study are made equal in parameters."""

    budget: int | str | None = None
    """Parameters of every model, embedding included (1e6), or the name of the model that sets them; null: no solving."""
    target: float = 0.01
    """The solver aims at this relative difference from the budget."""
    refuse_above: float = 0.02
    """A study whose models differ by more does not start."""
    allow_mismatch: bool = False
    """Start all the same; the report flags it."""
    d_model_multiple: int | None = None
    """d_model is a multiple of this; null: 8 below 20 M parameters, else 128."""
    d_ff_multiple: int | None = None
    """d_ff is a multiple of this; null: 8 below 20 M parameters, else 64."""
    aspect: float = 40.0
    """Preferred d_model per mixer or MLP layer (2560 / 64 at 2.7 B), used where sizes are free."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a budget or tolerance that cannot be."""
        if isinstance(self.budget, int):
            require(f"{at}.budget", self.budget, self.budget >= 1000, ">= 1000, a model's name, or null")
        require(f"{at}.target", self.target, 0 < self.target < 1, "0 < target < 1")
        require(f"{at}.refuse_above", self.refuse_above, 0 < self.refuse_above < 1, "0 < refuse_above < 1")
        require(f"{at}.aspect", self.aspect, self.aspect > 0, "> 0")
        for name in ("d_model_multiple", "d_ff_multiple"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or value >= 1, ">= 1 or null")


@dataclass(frozen=True)
class KernelsConfig:
    """Which implementation the ops take."""

    backend: Literal["auto", "triton", "torch", "mamba_ssm", "flash_attn", "fla", "flex"] = "auto"
    """auto picks by device; a named one is used where the op has it, and refused where it cannot work."""
