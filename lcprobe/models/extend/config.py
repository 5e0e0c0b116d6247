"""Settings of extensions at evaluation: `pe.extend` and `pe.factor`. Without torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, require, unknown_name
from lcprobe.files import digest_json
from lcprobe.models.extend import EXTENSIONS
from lcprobe.schema import plain

AS_TRAINED = "none"
"""The name of no extension, in configs and in records."""
MAX_LABEL_LENGTH = 48
MAX_FACTOR = 65_536
"""2,048 trained tokens to 134 million: beyond any sequence that can be probed, well within the precision of float64
frequencies."""
ALLOWED_FACTORS = f">= 1 and <= {MAX_FACTOR}, or auto"


@dataclass(frozen=True)
class Method:
    """One entry of `pe.extend`. label: its name in reports and records; factor: None is auto."""

    label: str
    choice: Choice
    factor: float | None


@dataclass(frozen=True)
class ExtendConfig:
    """Extensions of trained models at evaluation, without training; each is a column of the report, on the same
    episodes."""

    extend: Any = AS_TRAINED
    """A method, `yarn` or `{type: yarn, ramp: rotations}`, or a list of methods, each with an optional `factor` and
    `label`. The model as trained (`none`) is always included."""
    factor: float | Literal["auto"] = "auto"
    """Ratio of the extended length to the training length; auto: at each length max(1, length / context_length). At
    1, every method is the model as trained."""

    def check(self, at: str) -> None:
        """Raises ConfigError for unknown methods, factors out of range, and two methods with the same label."""
        require(f"{at}.factor", self.factor, self.factor == "auto" or 1 <= self.factor <= MAX_FACTOR, ALLOWED_FACTORS)
        labels = [method.label for method in self.methods(at)]
        repeated = [label for label in labels if labels.count(label) > 1]
        require(f"{at}.extend", repeated[:1], not repeated, "methods that differ, or a `label` for each")

    def methods(self, at: str = "pe") -> list[Method]:
        """The methods beside `none`, in order. Raises ConfigError as `check` does."""
        several = isinstance(self.extend, list | tuple)
        given = self.extend if several else [self.extend]
        require(f"{at}.extend", self.extend, len(given) > 0, "a method, or a list of at least one")
        methods = [
            self._method(one, f"{at}.extend[{i}]" if several else f"{at}.extend") for i, one in enumerate(given)
        ]
        return [method for method in methods if method is not None]

    def _method(self, given: Any, key: str) -> Method | None:
        mapping = {"type": given} if isinstance(given, str) else given
        if not isinstance(mapping, Mapping):
            raise ConfigError(key, given, "a method's name, or a mapping with `type`")
        name, own = mapping.get("type"), {str(k): v for k, v in mapping.items() if k not in ("label", "factor")}
        if name not in EXTENSIONS and name != AS_TRAINED:
            raise unknown_name(key, name, [AS_TRAINED, *sorted(EXTENSIONS)])
        factor = mapping.get("factor", self.factor)
        number = isinstance(factor, int | float) and not isinstance(factor, bool) and 1 <= factor <= MAX_FACTOR
        require(f"{key}.factor", factor, number or factor == "auto", ALLOWED_FACTORS)
        if name == AS_TRAINED:
            require(key, given, len(mapping) == 1, "none has no settings")
            return None
        label = mapping.get("label", _label(mapping))
        valid = isinstance(label, str) and re.fullmatch(r"[\w.,=()+:-]+", label) and len(label) <= MAX_LABEL_LENGTH
        require(f"{key}.label", label, bool(valid), f"letters, digits and .,=()+:- ({MAX_LABEL_LENGTH} at most)")
        return Method(str(label), EXTENSIONS.convert(own, key), float(factor) if number else None)


def _label(mapping: Mapping[str, Any]) -> str:
    """A default label: `yarn`, `yarn(ramp=rotations,factor=8)`, or with a digest of long settings."""
    settings = {k: v for k, v in mapping.items() if k != "type"}
    name = str(mapping["type"])
    text = f"{name}({','.join(f'{k}={v}' for k, v in settings.items())})" if settings else name
    if len(text) <= MAX_LABEL_LENGTH and re.fullmatch(r"[\w.,=()+-]+", text):
        return text
    return f"{name}({digest_json(plain(settings))[:6]})"
