"""What has to be known of a published checkpoint besides its weights: tokenizer, BOS rule, prompt template, training
length and where that number comes from.

Looked for in this order: settings of the command or config, `lcprobe.yaml` beside the weights, `known.yaml` here (by
the name on the hub), and what config.json says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from lcprobe.dialect import read_yaml
from lcprobe.errors import CheckpointError, ConfigError, require
from lcprobe.lengths import MAX_TOKENS
from lcprobe.schema import TOTAL, build

FACTS_FILE = "lcprobe.yaml"
LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "context_length",
    "n_ctx",
)
"""Keys of config.json that say for how many positions a model was made, most usual first."""


@dataclass(frozen=True)
class CheckpointFacts:
    """Facts about a published checkpoint, as in `known.yaml` and `lcprobe.yaml`."""

    paper: str = ""
    """Abbreviation in arXiv 2407.08112, Mamba2 | M2A | TPP | RWKV | SL | SL-IT | RG | RG-IT; empty: not in it."""
    paper_template: Literal["none", "instruction", "rwkv"] = "none"
    """Template around its prompts in the scripts of that paper."""
    tokenizer: str | None = None
    """Name on the hub, folder or tokenizer.json of its tokenizer; null: that in its own folder."""
    bos: str | None = None
    """Token before every prompt; `none`: no token; null: the tokenizer's begin-of-text token, where it has one."""
    chat: bool | None = None
    """Whether it was trained to follow its chat template; null: whether its tokenizer has one."""
    context_length: int | None = None
    """Training length in tokens."""
    context_length_from: str = ""
    """Where that number comes from."""
    other_context_lengths: dict[str, int] = field(default_factory=dict)
    """Training lengths that other sources state, by source."""
    tokens: Annotated[int, TOTAL] = 0
    """Training tokens; 0: unknown."""
    revision: str | None = None
    """Commit on the hub that these facts are about."""
    model: dict[str, Any] = field(default_factory=dict)
    """Its shape as the `model:` section of a config, with which it is planned where its files are not here."""
    model_from: str = ""
    """What is not certain of that shape."""
    settings: dict[str, Any] | None = None
    """What neither config.json nor the weights say, in the settings of its format: `{definition: ...}` of
    Mamba-3; null: nothing."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a length out of range, and for one without a source."""
        n = self.context_length
        require(f"{at}.context_length", n, n is None or 2 <= n <= MAX_TOKENS, f"2 .. {MAX_TOKENS}")
        stated = n is None or bool(self.context_length_from.strip())
        require(f"{at}.context_length_from", self.context_length_from, stated, "where context_length comes from")

    @property
    def length_note(self) -> str:
        """`trained at 2,048 tokens (source); 8,192 by other source`."""
        others = "".join(f"; {n:,} by {source}" for source, n in self.other_context_lengths.items())
        return f"training length {self.context_length or 0:,} from {self.context_length_from}{others}"


def facts_about(folder: Path, hub_name: str | None) -> CheckpointFacts:
    """What is known of a checkpoint besides its files. hub_name: where it comes from the hub. Raises CheckpointError
    for a malformed lcprobe.yaml."""
    own = folder / FACTS_FILE
    if not own.is_file():
        return known().get(hub_name or "", CheckpointFacts())
    try:
        return build(CheckpointFacts, read_yaml(own.read_text(encoding="utf-8")) or {}, FACTS_FILE)
    except (ConfigError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{own}: {error}") from None


def stated_length(config_json: Mapping[str, Any]) -> tuple[int, str] | None:
    """The number of positions that a model was made for, and the key of config.json that says so; None: no key."""
    for key in LENGTH_KEYS:
        value = config_json.get(key)
        if isinstance(value, int) and 2 <= value <= MAX_TOKENS:
            return value, f"{key} of config.json"
    return None


@cache
def known() -> dict[str, CheckpointFacts]:
    """The facts of `known.yaml` by name on the hub."""
    text = (resources.files("lcprobe.models.checkpoints") / "known.yaml").read_text(encoding="utf-8")
    return {name: build(CheckpointFacts, facts, f"known.yaml: {name}") for name, facts in read_yaml(text).items()}
