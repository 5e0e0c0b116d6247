"""Layer layouts: `mamba2 x 4, attention+mlp, [local x 3, attention] x 2` -> one (mixer, mlp) pair per layer.

Names are entries of `model.mixers` or registered mixers; `+mlp` adds the MLP of `model.mlp`, `+relu2` the one
registered under that name. With `n_layers`, the pattern is repeated and cut to that
many layers.
"""

import re
from typing import NamedTuple

from lcprobe.errors import ConfigError, nearest_name
from lcprobe.models.mlps import MLPS

TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[\[\],+])")


MAX_LAYERS = 10_000
"""Blocks of a model, and elements of a pattern, at most."""


class Layer(NamedTuple):
    """One block: the name of its mixer, and the word for its MLP: `mlp` for that of model.mlp, or a registered name;
    None where it has none."""

    mixer: str
    mlp: str | None

    @property
    def entry(self) -> str:
        """The mixer's name in model.mixers, without the encoding that a pattern appends to it."""
        return self.mixer.partition(":")[0]


class PatternItem(NamedTuple):
    """One element of a pattern: a name, and the words joined to it with +."""

    name: str
    joined: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join([self.name, *self.joined])


LAYOUT = "a pattern such as `mamba2 x 4, attention+mlp, mamba2 x 4`"
MLP_WORDS = ("mlp", *(name for name in MLPS if name != "none"))
"""What may be joined to a mixer with +."""


def parse_layout(text: str, key: str = "model.layout") -> list[Layer]:
    """Parse a layout into its layers. Raises ConfigError that shows where parsing stopped."""
    layers = []
    for item in items_of(text, key, LAYOUT):
        word = item.joined[0] if item.joined else None
        if len(item.joined) > 1:
            raise _wrong(key, text, str(item), LAYOUT)
        if word is not None and word not in MLP_WORDS:
            raise _wrong(key, text, str(item), LAYOUT, nearest_name(word, MLP_WORDS))
        layers.append(Layer(item.name, word))
    return layers


def items_of(text: str, key: str, allowed: str) -> list[PatternItem]:
    """Expand a pattern such as `a x 2, [b+c, d] x 3`. Raises ConfigError that shows where parsing stopped, and
    `allowed`."""
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if not match:
            raise _wrong(key, text, text[at:], allowed)
        tokens.append(match.group(1))
        at = match.end()
    try:
        items, rest = _items(tokens)
    except _Stuck as stuck:
        raise _wrong(key, text, str(stuck), allowed) from None
    if rest or not items:
        raise _wrong(key, text, " ".join(rest), allowed)
    return items


def layers_of(layout: str, n_layers: int | None, attn_layer_idx: list[int] | None, key: str = "model") -> list[Layer]:
    """The layers of a model: the pattern repeated to `n_layers`, with `attention` at the listed indices. Raises
    ConfigError for a layout that cannot be parsed and an index out of range."""
    pattern = parse_layout(layout, f"{key}.layout")
    count = len(pattern) if n_layers is None else n_layers
    layers = [pattern[i % len(pattern)] for i in range(count)]
    for index in attn_layer_idx or []:
        if not 0 <= index < count:
            raise ConfigError(f"{key}.attn_layer_idx", index, f"0 .. {count - 1} for {count} layers")
        layers[index] = Layer("attention", layers[index].mlp)
    return layers


class _Stuck(Exception):
    """The rest of a pattern that cannot be parsed."""


def _items(tokens: list[str]) -> tuple[list[PatternItem], list[str]]:
    items: list[PatternItem] = []
    while tokens and tokens[0] != "]":
        if tokens[0] == "[":
            group, tokens = _items(tokens[1:])
            if not tokens:
                raise _Stuck("a missing ]")
            tokens = tokens[1:]
        elif _is_name(tokens[0]):
            name, tokens, joined = tokens[0], tokens[1:], []
            while len(tokens) > 1 and tokens[0] == "+" and _is_name(tokens[1]):
                joined.append(tokens[1])
                tokens = tokens[2:]
            group = [PatternItem(name, tuple(joined))]
        else:
            raise _Stuck(" ".join(tokens))
        if tokens[:1] == ["x"]:
            if len(tokens) < 2 or not tokens[1].isdigit() or int(tokens[1]) < 1:
                raise _Stuck(" ".join(tokens))
            if len(tokens[1]) > 5 or len(group) * int(tokens[1]) > MAX_LAYERS:
                raise _Stuck(f"x {tokens[1]}: more than {MAX_LAYERS} layers")
            group, tokens = group * int(tokens[1]), tokens[2:]
        items += group
        if not tokens or tokens[0] == "]":
            break
        if tokens[0] != ",":
            raise _Stuck(" ".join(tokens))
        tokens = tokens[1:]
        if not tokens or tokens[0] == "]":
            raise _Stuck("a comma with nothing after it")
    return items, tokens


def _is_name(token: str) -> bool:
    return token[0].isalpha() or token[0] == "_"


def _wrong(key: str, text: str, rest: str, allowed: str, near: str | None = None) -> ConfigError:
    where = f" (stuck at {rest!r})" if rest else ""
    return ConfigError(key, text + where, allowed, near)
