"""From a ModelConfig to its parts: mixers, sizes and cost, which matching and LanguageModel share."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, inside, unknown_name
from lcprobe.models.config import ModelConfig
from lcprobe.models.cost import Cost
from lcprobe.models.layout import Layer, layers_of
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.mlps import MLPS
from lcprobe.models.parallel import mean_cost
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.positional.contract import HeadShape
from lcprobe.models.positional.schedule import EncodingPattern, LayerEncoding
from lcprobe.schema import resolve


@dataclass(frozen=True)
class LayerParts:
    """One mixer with its settings, and the MLP that follows it, if any.

    entry: name in model.mixers; name: the entry with its part of an encoding pattern or its place in a carry group;
    kind: name in MIXERS. mlp: of the last mixer in a block. beside: in the
    block of the layer before, in parallel to it. Layers with the same name are equal.
    """

    entry: str
    name: str
    kind: str
    mixer: type[Mixer]
    config: MixerConfig
    mlp: Choice | None
    beside: bool = False


@dataclass(frozen=True)
class ModelParts:
    """The parts of a model. layers: its mixers, in order; added: the absolute encoding that is added to its
    embedding."""

    layers: tuple[LayerParts, ...]
    added: Choice | None = None

    @property
    def carries_encodings(self) -> bool:
        """Whether a layer carries a positional encoding, which is true of attention."""
        return any(layer.mixer.carries_encoding for layer in self.layers)

    @property
    def is_recurrent(self) -> bool:
        """Whether a layer has a recurrent state of fixed size."""
        return any(layer.mixer.is_recurrent() for layer in self.layers)

    @cached_property
    def blocks(self) -> list[tuple[LayerParts, ...]]:
        """The mixers of each block."""
        blocks: list[list[LayerParts]] = []
        for layer in self.layers:
            if layer.beside:
                blocks[-1].append(layer)
            else:
                blocks.append([layer])
        return [tuple(block) for block in blocks]

    @cached_property
    def counted_blocks(self) -> list[tuple[tuple[LayerParts, ...], int]]:
        """Each distinct block, with its number of occurrences."""
        keys = [tuple((layer.name, layer.mlp) for layer in block) for block in self.blocks]
        first = dict(zip(reversed(keys), reversed(self.blocks), strict=True))
        return [(first[key], count) for key, count in Counter(keys).items()]


def parts_of(config: ModelConfig, key: str = "model") -> ModelParts:
    """The layers with their mixers' settings. Raises ConfigError for unknown names, and for wrong settings even of
    unused entries."""
    layers = layers_in(config, key)
    resolve(config)
    entries = dict(config.mixers)
    for name in dict.fromkeys(name for layer in layers for name in layer.mixers):
        if name in entries:
            continue
        if name not in MIXERS:
            raise unknown_name(f"{key}.layout", name, sorted({*MIXERS.names, *config.mixers}))
        entries[name] = MIXERS.convert({"type": name}, f"{key}.mixers.{name}")
    by_layer = {layer: list(_block(layer, entries, config)) for layer in dict.fromkeys(layers)}
    parts = list(_in_groups([part for layer in layers for part in by_layer[layer]], key))
    if config.positional is None:
        return ModelParts(tuple(parts))
    return _encoded(parts, config, config.positional, key)


def _block(layer: Layer, entries: Mapping[str, Choice], config: ModelConfig) -> Iterator[LayerParts]:
    """The mixers of a block."""
    for i, name in enumerate(layer.mixers):
        choice, is_last = entries[name], i == len(layer.mixers) - 1
        own = choice.config.with_context_length(config.context_length)
        mlp = mlp_of(layer, config) if is_last else None
        yield LayerParts(name, name, choice.name, choice.cls, own, mlp, beside=i > 0)


def mlp_of(layer: Layer, config: ModelConfig) -> Choice | None:
    """The MLP of a layer: model.mlp for `+mlp`, one with its default settings for `+relu2`, None for no MLP."""
    if layer.mlp is None:
        return None
    choice = config.mlp if layer.mlp == "mlp" else MLPS.convert(layer.mlp, "model.layout")
    return None if choice.name == "none" else choice


def _in_groups(parts: list[LayerParts], key: str) -> Iterator[LayerParts]:
    """The layers, the first of every carry group with its own settings."""
    sizes, seen = Counter(layer.config.carry_group for layer in parts), Counter[Hashable]()
    for layer in parts:
        group = layer.config.carry_group
        if group is not None:
            with inside(f"{key}.mixers.{layer.entry}"):
                config = layer.config.in_group(seen[group], sizes[group])
            layer = replace(layer, config=config, name=layer.name if seen[group] else f"{layer.name}, first")
            seen[group] += 1
        yield layer


def _encoded(parts: list[LayerParts], config: ModelConfig, pattern: EncodingPattern, key: str) -> ModelParts:
    """The layers, those that carry an encoding with their part of `model.positional`."""
    layer_encodings = pattern.layers(config.encodings)
    if not any(layer.mixer.carries_encoding for layer in parts):
        raise ConfigError(
            f"{key}.positional", pattern.written, "null: the model has no attention to carry an encoding"
        )
    added = pattern.absolute(config.encodings)
    if added is not None:
        none = POSITIONAL.convert({"type": "none"}, pattern.key)
        layer_encodings = [replace(layer_encodings[0], changes={**layer_encodings[0].changes, "positional": none})]
    encoded, count = [], 0
    known: dict[str, LayerParts] = {}
    for layer in parts:
        if layer.mixer.carries_encoding:
            own, count = layer_encodings[count % len(layer_encodings)], count + 1
            name = f"{layer.entry}:{own.text}"
            if name not in known:
                changed = _with_encoding(layer.config, own, f"{key}.mixers.{layer.entry}", f"{key}.positional")
                known[name] = replace(layer, name=name, config=changed)
            layer = replace(known[name], mlp=layer.mlp, beside=layer.beside)
        encoded.append(layer)
    return ModelParts(tuple(encoded), added)


def _with_encoding(config: MixerConfig, own: LayerEncoding, mixer: str, key: str) -> MixerConfig:
    """A layer's settings with its part of the pattern, checked. Errors name the key under which the wrong value was
    written."""
    changed = config.with_encoding(own.changes)
    try:
        changed.check("")
    except ConfigError as error:
        field, _, rest = error.key.removeprefix(".").partition(".")
        if field == "positional":
            raise ConfigError(f"{own.key}.{rest}", error.given, error.allowed, error.near) from None
        if field in own.changes:
            raise ConfigError(key, own.text, f"{field} {error.allowed}") from None
        raise ConfigError(f"{mixer}.{field}", error.given, error.allowed, error.near) from None
    return changed


def layers_in(config: ModelConfig, key: str = "model") -> list[Layer]:
    """The layers of a config whose n_layers is known. Raises ConfigError where it is not solved yet."""
    if config.n_layers == "solve":
        raise ConfigError(f"{key}.n_layers", "solve", "a number, or match.budget to solve it")
    return layers_of(config.layout, config.n_layers, config.attn_layer_idx, key)


def padded_vocab(config: ModelConfig) -> int:
    """Number of rows of the embedding. Raises ConfigError without vocab_size."""
    if config.vocab_size is None:
        raise ConfigError("model.vocab_size", None, "the tokenizer's size")
    return -(-config.vocab_size // config.vocab_multiple) * config.vocab_multiple


def resolved_sizes(config: ModelConfig) -> tuple[int, int, int]:
    """(d_model, d_ff, vocab_size); d_ff is 0 where no block has an MLP. Raises ConfigError where one is not set."""
    layers = layers_in(config)
    has_mlp = any(mlp_of(layer, config) for layer in layers)
    if config.d_model is None or config.vocab_size is None:
        name = "d_model" if config.d_model is None else "vocab_size"
        raise ConfigError(f"model.{name}", None, "a number, or match.budget to solve it")
    if has_mlp and config.d_ff is None:
        raise ConfigError("model.d_ff", None, "a number, or match.budget to solve it")
    return config.d_model, config.d_ff or 0, config.vocab_size


@dataclass(frozen=True)
class ModelCost:
    """The cost of a whole model at one length. embedding: parameters of embedding and head; head_flops: per token."""

    embedding: int
    blocks: Cost
    head_flops: float

    @property
    def params(self) -> int:
        """All trainable parameters."""
        return self.embedding + self.blocks.params

    @property
    def flops(self) -> float:
        """Forward FLOPs per token, head included; training takes three times as many."""
        return self.blocks.flops + self.head_flops


def model_cost(config: ModelConfig, length: int) -> ModelCost:
    """Closed-form cost of a model with known sizes. A test compares it with the built module."""
    resolved_sizes(config)
    return cost_of(parts_of(config), config, length)


def cost_of(parts: ModelParts, config: ModelConfig, length: int) -> ModelCost:
    """`model_cost` for parts that are already known, for searches over sizes."""
    d_model = config.d_model or 0
    norm = Cost(params=config.norm.cls.params(config.norm.config, d_model))
    total = norm.times(2 if config.embedding_norm else 1)  # the final one
    for block, count in parts.counted_blocks:
        total += _block_cost(block, config, norm, length).times(count)
    if parts.added is not None:
        shape = HeadShape(1, 1, 1, d_model, config.context_length)
        total += Cost(params=parts.added.cls.params(parts.added.config, shape))
    rows = padded_vocab(config)
    return ModelCost(rows * d_model * (1 if config.tie_embeddings else 2), total, 2.0 * rows * d_model)


def _block_cost(block: tuple[LayerParts, ...], config: ModelConfig, norm: Cost, length: int) -> Cost:
    d_model, mlp = config.d_model or 0, block[-1].mlp
    total = Cost()
    for layer in block:
        with inside(f"model.mixers.{layer.entry}"):
            total += layer.mixer.cost(layer.config, d_model, length)
    if len(block) > 1 and config.parallel == "mean":
        total += mean_cost([(layer.mixer, layer.config) for layer in block], d_model)
    if mlp is not None:
        total += mlp.cls.cost(mlp.config, d_model, config.d_ff or 0)
    n_norms = (1 if mlp is None else 2) * (2 if config.sandwich_norm else 1)
    return total + norm.times(n_norms)
