"""Layer layouts: `mamba2 x 4, attention+mlp, [local x 3, attention] x 2` -> one (mixer, mlp) pair a layer.

Names are entries of `model.mixers` (or registered mixers). With `n_layers` the pattern repeats and is cut there.
"""

import re
from typing import NamedTuple

from lcprobe.errors import ConfigError

TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[\[\],+])")


class Layer(NamedTuple):
    """One block: a mixer by name, and whether an MLP follows it."""

    mixer: str
    mlp: bool


def parse(text: str, key: str = "model.layout") -> list[Layer]:
    """A pattern as a list of layers. Raises ConfigError showing where the text stops making sense."""
    tokens, at = [], 0
    while at < len(text.rstrip()):
        found = TOKEN.match(text, at)
        if not found:
            raise _wrong(key, text, text[at:])
        tokens.append(found.group(1))
        at = found.end()
    layers, rest = _items(tokens, key, text)
    if rest or not layers:
        raise _wrong(key, text, " ".join(rest))
    return layers


def layers_of(layout: str, n_layers: int | None, attn_layer_idx: list[int] | None, key: str = "model") -> list[Layer]:
    """The layers of a model: the pattern, repeated to `n_layers`, with `attention` at the listed indices."""
    pattern = parse(layout, f"{key}.layout")
    count = len(pattern) if n_layers is None else n_layers
    layers = [pattern[i % len(pattern)] for i in range(count)]
    for index in attn_layer_idx or []:
        if not 0 <= index < count:
            raise ConfigError(f"{key}.attn_layer_idx", index, f"0 .. {count - 1} for {count} layers")
        layers[index] = Layer("attention", layers[index].mlp)
    return layers


def _items(tokens: list[str], key: str, text: str) -> tuple[list[Layer], list[str]]:
    layers: list[Layer] = []
    while tokens and tokens[0] != "]":
        if tokens[0] == "[":
            group, tokens = _items(tokens[1:], key, text)
            if not tokens:
                raise _wrong(key, text, "a missing ]")
            tokens = tokens[1:]
        elif tokens[0][0].isalpha() or tokens[0][0] == "_":
            name, tokens = tokens[0], tokens[1:]
            mlp = tokens[:2] == ["+", "mlp"]
            group, tokens = [Layer(name, mlp)], tokens[2:] if mlp else tokens
        else:
            raise _wrong(key, text, " ".join(tokens))
        if tokens[:1] == ["x"]:
            if len(tokens) < 2 or not tokens[1].isdigit() or int(tokens[1]) < 1:
                raise _wrong(key, text, " ".join(tokens))
            group, tokens = group * int(tokens[1]), tokens[2:]
        layers += group
        if not tokens or tokens[0] == "]":
            break
        if tokens[0] != ",":
            raise _wrong(key, text, " ".join(tokens))
        tokens = tokens[1:]
        if not tokens or tokens[0] == "]":
            raise _wrong(key, text, "a comma with nothing after it")
    return layers, tokens


def _wrong(key: str, text: str, rest: str) -> ConfigError:
    where = f" (stuck at {rest!r})" if rest else ""
    return ConfigError(key, text + where, "a pattern such as `mamba2 x 4, attention+mlp, mamba2 x 4`")
