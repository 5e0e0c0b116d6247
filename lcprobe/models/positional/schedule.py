"""Which encoding each attention layer carries: one for all, or a pattern such as `[rope+window512 x 3, none] x 6`.

The pattern goes over the attention layers from the first to the last and repeats. A name is a registered encoding or an entry
of `model.encodings`; joined to it with + may stand

    window512   the layer sees that many tokens             logn, ssmax   the softmax's temperature
    sinks4      so many first tokens beside the window      sink          a learned logit without a value

RNoPE-SWA (arXiv 2501.18795) is `[rope+window512 x 3, none]`, SWAN (2504.08719) `[none, rope+window512 x 3]` with logn on the
global layers, iRoPE `[rope x 3, none]`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcprobe.choices import choose
from lcprobe.errors import ConfigError, require, unknown_name
from lcprobe.models.layout import PatternItem, items_of
from lcprobe.models.positional import POSITIONAL

ALLOWED = "an encoding, or a pattern such as `[rope+window512 x 3, none] x 6`"


@dataclass(frozen=True)
class Carried:
    """One attention layer's part: how the pattern writes it, the settings of AttentionConfig that it changes, and the key under
    which the encoding's own settings are written."""

    text: str
    changes: Mapping[str, Any]
    key: str


def carried(positional: Any, encodings: Mapping[str, Any], key: str) -> list[Carried]:
    """The pattern written out. Raises ConfigError for what is no pattern, and for unknown names."""
    if isinstance(positional, Mapping):
        choose(POSITIONAL, positional, key)
        return [Carried(str(positional.get("type")), {"positional": dict(positional)}, key)]
    if isinstance(positional, list | tuple):
        positional = ", ".join(str(p) for p in positional)
    if not isinstance(positional, str):
        raise ConfigError(key, positional, ALLOWED)
    return [_carried(item, encodings, key) for item in items_of(positional, key, ALLOWED)]


def absolute(positional: Any, encodings: Mapping[str, Any], key: str) -> Any:
    """The Choice of an absolute encoding where that is what the model has; None otherwise.

    Raises ConfigError for an absolute encoding among others: it acts once, on the embedding.
    """
    if positional is None:
        return None
    parts = carried(positional, encodings, key)
    found = [choose(POSITIONAL, p.changes["positional"], key) for p in parts]
    if not any(f.made_by.family == "absolute" for f in found):
        return None
    if len(parts) > 1:
        name = next(f.name for f in found if f.made_by.family == "absolute")
        raise ConfigError(key, f"{name} for some layers", f"`{name}` alone: it acts once, on the embedding")
    return found[0]


def _carried(item: PatternItem, encodings: Mapping[str, Any], key: str) -> Carried:
    if item.name not in encodings and item.name not in POSITIONAL:
        raise unknown_name(key, item.name, {*POSITIONAL, *encodings})
    mapping = encodings.get(item.name, {"type": item.name})
    own = f"model.encodings.{item.name}" if item.name in encodings else key
    choose(POSITIONAL, mapping, own)
    changes: dict[str, Any] = {"positional": mapping}
    for suffix in item.joined:
        before = len(changes)
        number = re.fullmatch(r"(window|sinks)([0-9]+)", suffix)
        if number:
            changes[number.group(1)] = int(number.group(2))
        elif suffix in ("logn", "ssmax"):
            changes["temperature"] = {"type": suffix}
        elif suffix == "sink":
            changes["sink_logit"] = True
        else:
            raise ConfigError(key, f"{item}", "joined with +: window<n> | sinks<n> | logn | ssmax | sink")
        require(
            key,
            f"{item}",
            len(changes) > before,
            "one window, one number of sinks, one temperature and one sink a layer",
        )
    return Carried(str(item), changes, own)
