"""From a ModelConfig to its parts: which mixers, which sizes, what it costs. What matching and LanguageModel share."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from lcprobe.choices import Choice, choose
from lcprobe.errors import ConfigError, inside, unknown_name
from lcprobe.models.config import ModelConfig
from lcprobe.models.cost import Cost
from lcprobe.models.layout import Layer, layers_of
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.positions import POSITIONS
from lcprobe.models.positional.schedule import Carried, absolute, carried


def mixers_of(config: ModelConfig, key: str = "model") -> tuple[list[Layer], dict[str, Choice]]:
    """The layers and, by name, the mixers that they use. Raises ConfigError for unknown names and wrong settings."""
    layers = layers_in(config, key)
    if config.positions is not None:
        choose(POSITIONS, config.positions, f"{key}.positions")
    known = {*MIXERS, *config.mixers}
    choices = {}
    for name in dict.fromkeys([*(layer.mixer for layer in layers), *config.mixers]):
        if name not in known:
            raise unknown_name(f"{key}.layout", name, known)
        mapping = config.mixers.get(name, {})
        if name in MIXERS and isinstance(mapping, dict):
            mapping = {"type": name, **mapping}
        choices[name] = choose(MIXERS, mapping, f"{key}.mixers.{name}")
        if hasattr(choices[name].config, "context_length") and choices[name].config.context_length is None:
            known_length = replace(choices[name].config, context_length=config.context_length)
            choices[name] = choices[name]._replace(config=known_length)
    if config.positional is None:
        return layers, choices
    return _encoded(layers, choices, config, key)


def _encoded(
    layers: list[Layer], choices: dict[str, Choice], config: ModelConfig, key: str
) -> tuple[list[Layer], dict[str, Choice]]:
    """The attention layers under names of their own, with the encodings that model.positional gives them."""
    key = f"{key}.positional"
    parts = carried(config.positional, config.encodings, key)
    if not any(hasattr(choices[layer.mixer].config, "positional") for layer in layers):
        raise ConfigError(key, config.positional, "null: the model has no attention to carry an encoding")
    if absolute(config.positional, config.encodings, key) is not None:
        parts = [replace(parts[0], changes={**parts[0].changes, "positional": {"type": "none"}})]
    made, choices, count = [], dict(choices), 0
    for layer in layers:
        choice = choices[layer.mixer]
        if hasattr(choice.config, "positional"):
            part, count = parts[count % len(parts)], count + 1
            own, layer = layer.mixer, Layer(f"{layer.mixer}:{part.text}", layer.mlp)
            if layer.mixer not in choices:
                choices[layer.mixer] = choice._replace(
                    config=_carrying(choice.config, part, f"model.mixers.{own}", key)
                )
        made.append(layer)
    return made, choices


def _carrying(config: Any, part: Carried, mixer: str, key: str) -> Any:
    """A layer's settings with its part of the pattern, checked: errors name the key that says what is wrong."""
    changed = replace(config, **part.changes)
    try:
        changed.check("")
    except ConfigError as error:
        own, _, rest = error.key.removeprefix(".").partition(".")
        if own == "positional":
            raise ConfigError(f"{part.key}.{rest}", error.given, error.allowed, error.near) from None
        if own in part.changes:
            raise ConfigError(key, part.text, f"{own} {error.allowed}") from None
        raise ConfigError(f"{mixer}.{own}", error.given, error.allowed, error.near) from None
    return changed


def absolute_of(config: ModelConfig, key: str = "model") -> Choice | None:
    """The absolute encoding that the model adds to its embedding, if it has one."""
    return absolute(config.positional, config.encodings, f"{key}.positional")


def layers_in(config: ModelConfig, key: str = "model") -> list[Layer]:
    """The layers of a config whose n_layers is known. Raises ConfigError where it is still to be solved."""
    if config.n_layers == "solve":
        raise ConfigError(f"{key}.n_layers", "solve", "a number by now: set match.budget")
    return layers_of(config.layout, config.n_layers, config.attn_layer_idx, key)


def padded_vocab(config: ModelConfig) -> int:
    """Rows of the embedding. Raises ConfigError without a vocabulary."""
    if config.vocab_size is None:
        raise ConfigError("model.vocab_size", None, "the tokenizer's size")
    return -(-config.vocab_size // config.vocab_multiple) * config.vocab_multiple


def resolved_sizes(config: ModelConfig) -> tuple[int, int, int]:
    """(d_model, d_ff, vocab_size), all set (d_ff 0 where no block has an MLP). Raises ConfigError otherwise."""
    layers = layers_in(config)
    has_mlp = any(layer.mlp for layer in layers)
    if config.d_model is None or config.vocab_size is None:
        name = "d_model" if config.d_model is None else "vocab_size"
        raise ConfigError(f"model.{name}", None, "a number by now: pinned in the config or solved by matching")
    if has_mlp and config.d_ff is None:
        raise ConfigError("model.d_ff", None, "a number by now: pinned in the config or solved by matching")
    return config.d_model, config.d_ff or 0, config.vocab_size


@dataclass(frozen=True)
class ModelCost:
    """A whole model at one length; embedding counted and reported apart."""

    embedding: int
    blocks: Cost
    head_flops: float

    @property
    def params(self) -> int:
        """All trainable numbers."""
        return self.embedding + self.blocks.params

    @property
    def flops(self) -> float:
        """Forward FLOPs a token, head included; training costs three times that."""
        return self.blocks.flops + self.head_flops


def model_cost(config: ModelConfig, length: int) -> ModelCost:
    """Closed-form cost of a model with known sizes. A test compares it with the built module."""
    layers, choices = mixers_of(config)
    resolved_sizes(config)
    return cost_of(Counter(layers), choices, config, length)


def cost_of(layers: Counter[Layer], choices: dict[str, Choice], config: ModelConfig, length: int) -> ModelCost:
    """`model_cost` for layers and mixers that are already looked up: what a search over sizes calls."""
    d_model, d_ff = config.d_model or 0, config.d_ff or 0
    total = Cost(params=d_model)  # the final norm
    for layer, count in layers.items():
        choice = choices[layer.mixer]
        with inside(f"model.mixers.{layer.entry}"):
            one = choice.made_by.cost(choice.config, d_model, length) + Cost(params=d_model)
        if layer.mlp:
            one += Cost(params=3 * d_model * d_ff + d_model, flops=6 * d_model * d_ff)
        total += one.times(count)
    found = absolute_of(config)
    if found is not None:
        total += Cost(params=found.made_by.params(found.config, HeadShape(1, 1, 1, d_model, config.context_length)))
    rows = padded_vocab(config)
    return ModelCost(rows * d_model * (1 if config.tie_embeddings else 2), total, 2.0 * rows * d_model)
