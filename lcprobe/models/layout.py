"""Layer layouts: `mamba2 x 4, attention+mlp, [local x 3, attention] x 2` -> one (mixer, mlp) pair per layer.

Names are entries of `model.mixers` or registered mixers; `+mlp` adds the MLP of `model.mlp`, `+relu2` the one
registered under that name; `parallel(mamba2, attention)` is one block whose mixers read the same input.
With `n_layers`, the pattern is repeated and cut to that
many layers.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lcprobe.errors import MAX_SHOWN, ConfigError, listed, nearest_name, shorten, shown
from lcprobe.files import digest_bytes
from lcprobe.models.mlps import MLPS

TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*(?::[A-Za-z_][A-Za-z0-9_]*)?|[0-9]+|[\[\],+()])")

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(:[A-Za-z_][A-Za-z0-9_]*)?")
MAX_LAYOUT_NAME = 60
MAX_LAYERS = 10_000
"""Blocks of a model, mixers of a layout, and elements of a pattern, at most."""


class Layer(NamedTuple):
    """One block: the name of its mixer, or of several in parallel, and the word for its MLP: `mlp` for that of
    model.mlp, or a registered name; None where it has none."""

    mixers: tuple[str, ...]
    mlp: str | None

    def __str__(self) -> str:
        return "+".join([*self.mixers, *([] if self.mlp is None else [self.mlp])])


class PatternItem(NamedTuple):
    """One element of a pattern: a name, the words joined to it with +, and what it has in parentheses."""

    name: str
    joined: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        arguments = f"({', '.join(self.arguments)})" if self.arguments else ""
        return "+".join([self.name + arguments, *self.joined])


LAYOUT = "a pattern such as `mamba2 x 4, attention+mlp, mamba2 x 4`"
PARALLEL = "parallel"
MLP_WORDS = ("mlp", *(name for name in MLPS if name != "none"))
"""What may be joined to a mixer with +."""
JOINED = f"{LAYOUT}, where + adds one of {listed(MLP_WORDS)}, and a mixer alone has no MLP"
"""What is allowed, for errors about a word joined with +."""


def parse_layout(text: str, key: str = "model.layout", names: Iterable[str] = ()) -> list[Layer]:
    """Parse a layout into its layers. names: as in `items_of`. Raises ConfigError that shows where parsing stops."""
    layers = []
    for item in items_of(text, key, LAYOUT, names):
        word = item.joined[0] if item.joined else None
        if len(item.joined) > 1:
            raise _wrong(key, text, str(item), JOINED)
        if word is not None and word not in MLP_WORDS:
            raise _wrong(key, text, str(item), JOINED, nearest_name(word, MLP_WORDS))
        if bool(item.arguments) != (item.name == PARALLEL) or len(item.arguments) == 1:
            near = None if item.name == PARALLEL else nearest_name(item.name, [PARALLEL])
            raise _wrong(key, text, str(item), "parallel(mamba2, attention), of two mixers or more", near)
        layers.append(Layer(item.arguments or (item.name,), word))
    return layers


def layout_name(layout: str, attn_layer_idx: Sequence[int] | None = None) -> str:
    """What a model of a layout is called where nothing else names it: its different blocks in order, `mamba2` or
    `mamba2-attention+mlp`, in letters that files may have. Raises ConfigError as `parse_layout`."""
    layers = parse_layout(layout)
    layers += [Layer(("attention",), layers[index % len(layers)].mlp) for index in attn_layer_idx or []]
    name = "-".join(dict.fromkeys(map(str, layers))).replace(":", ".").lstrip("_") or "model"
    return (
        name if len(name) <= MAX_LAYOUT_NAME else f"{name[: MAX_LAYOUT_NAME - 7]}-{digest_bytes(name.encode())[:6]}"
    )


def items_of(text: str, key: str, allowed: str, names: Iterable[str] = ()) -> list[PatternItem]:
    """Expand a pattern such as `a x 2, [b+c, d] x 3`. names: what `gated-deltanet`, with a hyphen, may stand for.
    Raises ConfigError that shows where parsing stopped, and `allowed`."""
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if not match:
            odd = next((name for name in names if not NAME.fullmatch(name) and name in text), None)
            if odd is not None:  # registered, and not possible in a layout
                raise _wrong(
                    key, text, odd, "mixers with names of letters, digits and _, starting with a letter or _"
                )
            raise _wrong(key, text, text[at:], allowed, _hyphenated(text, at, names))
        tokens.append(match.group(1))
        at = match.end()
    try:
        items, rest = _items(tokens)
    except _Stuck as stuck:
        raise _wrong(key, text, str(stuck), allowed) from None
    if rest or not items:
        raise _wrong(key, text, " ".join(rest), allowed)
    return items


def layers_of(
    layout: str,
    n_layers: int | None,
    attn_layer_idx: list[int] | None,
    key: str = "model",
    names: Iterable[str] = (),
) -> list[Layer]:
    """The layers of a model: the pattern repeated to `n_layers`, with `attention` at the listed indices. names: as in
    `items_of`. Raises ConfigError for a layout that cannot be parsed and an index out of range."""
    pattern = parse_layout(layout, f"{key}.layout", names)
    count = len(pattern) if n_layers is None else n_layers
    layers = [pattern[i % len(pattern)] for i in range(count)]
    for index in attn_layer_idx or []:
        if not 0 <= index < count:
            raise ConfigError(f"{key}.attn_layer_idx", index, f"0 .. {count - 1} for {count} layers")
        layers[index] = Layer(("attention",), layers[index].mlp)
    return layers


class _Stuck(Exception):
    """The rest of a pattern that cannot be parsed."""


def _items(tokens: list[str]) -> tuple[list[PatternItem], list[str]]:
    items: list[PatternItem] = []
    n = 0
    while tokens and tokens[0] != "]":
        if tokens[0] == "[":
            group, tokens = _items(tokens[1:])
            if not tokens:
                raise _Stuck("a missing ]")
            tokens = tokens[1:]
        elif _is_name(tokens[0]):
            name, tokens, joined = tokens[0], tokens[1:], []
            arguments, tokens = _arguments(tokens)
            while len(tokens) > 1 and tokens[0] == "+" and _is_name(tokens[1]):
                joined.append(tokens[1])
                tokens = tokens[2:]
            group = [PatternItem(name, tuple(joined), arguments)]
        else:
            raise _Stuck(" ".join(tokens))
        if tokens[:1] == ["x"]:
            if len(tokens) < 2 or not tokens[1].isdigit() or int(tokens[1]) < 1:
                raise _Stuck(" ".join(tokens))
            if len(tokens[1]) > 5 or _layers(group) * int(tokens[1]) > MAX_LAYERS:
                raise _Stuck(f"x {tokens[1]}: more than {MAX_LAYERS} layers")
            group, tokens = group * int(tokens[1]), tokens[2:]
        items += group
        n += _layers(group)
        if n > MAX_LAYERS:
            raise _Stuck(f"more than {MAX_LAYERS} layers")
        if not tokens or tokens[0] == "]":
            break
        if tokens[0] != ",":
            raise _Stuck(" ".join(tokens))
        tokens = tokens[1:]
        if not tokens or tokens[0] == "]":
            raise _Stuck("a comma with nothing after it")
    return items, tokens


def _layers(items: list[PatternItem]) -> int:
    """Mixers of the items, those in parallel each by itself."""
    return sum(max(1, len(item.arguments)) for item in items)


def _arguments(tokens: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The names in parentheses at the start of tokens, and the rest."""
    if tokens[:1] != ["("]:
        return (), tokens
    if ")" not in tokens:
        raise _Stuck("a missing )")
    end = tokens.index(")")
    inner = tokens[1:end]
    if len(inner) % 2 == 0 or not all(map(_is_name, inner[::2])) or set(inner[1::2]) - {","}:
        raise _Stuck(" ".join(tokens))
    return tuple(inner[::2]), tokens[end + 1 :]


def _hyphenated(text: str, at: int, names: Iterable[str]) -> str | None:
    """The name that is closest to the word around a hyphen at `at`; None where there is no hyphen."""
    if text[at] != "-":
        return None
    start, end = re.search(r"\w*$", text[:at]), re.match(r"[\w-]*", text[at:])
    return nearest_name((start[0] if start else "") + (end[0] if end else ""), names)


def _is_name(token: str) -> bool:
    return token[0].isalpha() or token[0] == "_"


def _wrong(key: str, text: str, rest: str, allowed: str, near: str | None = None) -> ConfigError:
    where = f" (stuck at {shown(rest, 40)})" if rest else ""
    return ConfigError(key, shorten(text, max(20, MAX_SHOWN - len(where))) + where, allowed, near)
