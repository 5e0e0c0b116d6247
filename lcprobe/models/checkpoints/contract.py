"""The contract of checkpoint formats, the classes behind the names in FORMATS.

    recognises    whether a folder is of this format, by its config.json
    settings      config.json -> the `model:` section of our config
    places        where each of their tensors is in our parameters; import and export read the same map
    config_json   our config -> config.json, for export

Errors about a published file are CheckpointErrors that name file and key; `NotCovered` is one about a file that is
whole, but of a model that our mixers cannot express.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.models.checkpoints.files import StoredTensor
from lcprobe.models.config import MAX_SIZE, ModelConfig
from lcprobe.models.layout import MAX_LAYERS

CONFIG_JSON = "config.json"


class NotCovered(CheckpointError):
    """A checkpoint that is whole, but has a setting that our mixers lack."""


Rows = slice | Tensor | None
"""Rows along the first dimension: a range, an index (n,) int64, or None for all."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where one of their tensors, or some of its rows, is in our model.

    parameter: its name there. rows: the parameter's rows that it fills, in the order of theirs. ones: indices of the
    dimensions of size 1 that their tensor has in addition. transposed: its last two dimensions are swapped, once it
    is without these. of: its rows that are here, once it has our shape; None unless it has several places. columns:
    those of the parameter that it fills. folded: the shape that these rows and columns have there, but for ones and
    `transposed`, where the same numbers in the same order have another one; () where they have not.

    `conv1d.weight (C, 1, K)` is `Place("conv_weight", ones=(1,))`; the keys of a joint projection are
    `Place("in_proj.weight", rows=slice(d, 2 * d))`.
    """

    parameter: str
    rows: Rows = None
    ones: tuple[int, ...] = ()
    transposed: bool = False
    of: Rows = None
    columns: Rows = None
    folded: tuple[int, ...] = ()


Places = Mapping[str, Place | tuple[Place, ...]]
"""By their tensor's name: its place, or the places of its rows. Together they fill every parameter once."""


@dataclass(frozen=True)
class FormatConfig:
    """Base of the settings of a format: what checkpoints of it do not say."""


ConfigT = TypeVar("ConfigT", bound=FormatConfig)


class Format(ABC, Generic[ConfigT]):
    """A checkpoint format."""

    Config: ClassVar[type]
    name: ClassVar[str]
    """Its name in FORMATS."""
    writes_copies: ClassVar[bool] = False
    """Whether files have tied tensors twice, as export writes them."""

    def __init__(self, config: ConfigT):
        self.config = config

    @abstractmethod
    def recognises(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Whether a checkpoint is of this format. config: its config.json, empty where it has none; folder: the
        folder, or the single file that was given. Reads no weights."""

    def described(self, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> Mapping[str, Any]:
        """What `settings` is given: config.json, or what the names and shapes of the tensors say where a format has
        none."""
        return config

    @abstractmethod
    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The `model:` section of our config. Raises CheckpointError, naming the key, where one is missing or wrong,
        and NotCovered for what our mixers cannot express."""

    @abstractmethod
    def places(self, config: ModelConfig) -> Places:
        """The place of every tensor of a model."""

    def copies(self, config: ModelConfig) -> dict[str, str]:
        """Tensors that files may have in addition, by name, and the one that each must be equal to: tied heads."""
        return {}

    def ignored(self, name: str) -> bool:
        """Whether files may have a tensor of this name that the model does not need, such as a table of angles."""
        return False

    @abstractmethod
    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """config.json for a model of ours. What the format cannot express is left out: export compares what
        `settings` makes of it with the model, and refuses."""


REQUIRED = object()


@dataclass(frozen=True)
class Keys:
    """Typed access to config.json. at: the section, for errors: `ssm_cfg.`."""

    mapping: Mapping[str, Any]
    at: str = ""
    read: set[str] = field(default_factory=set)

    def whole(self, key: str, default: Any = REQUIRED, least: int = 0, most: int = MAX_SIZE) -> int:
        """A whole number from `least` to `most`."""
        value = self._of(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < least:
            raise self.wrong(key, f"a whole number >= {least}")
        if value > most:
            raise self.wrong(key, f"a whole number <= {most}")
        return int(value)

    def layers(self, key: str = "num_hidden_layers") -> int:
        """A number of layers."""
        return self.whole(key, least=1, most=MAX_LAYERS)

    def number(self, key: str, default: Any = REQUIRED) -> float:
        """A number."""
        value = self._of(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        """true or false."""
        value = self._of(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true | false")
        return value

    def text(self, key: str, default: Any = REQUIRED) -> str:
        """A string."""
        value = self._of(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def items(self, key: str, default: Any = REQUIRED) -> list[Any]:
        """A list."""
        value = self._of(key, default)
        if not isinstance(value, list | tuple):
            raise self.wrong(key, "a list")
        return list(value)

    def names(self, key: str, allowed: Collection[str], default: Any = REQUIRED) -> list[str]:
        """A list of some of the allowed names, at least one."""
        value = self.items(key, default)
        if not value or not all(isinstance(one, str) and one in allowed for one in value):
            raise self.wrong(key, f"a list of {' | '.join(allowed)}")
        return value

    def indices(self, key: str, n: int, default: Any = REQUIRED) -> list[int]:
        """A list of layers, counted from 0, of n."""
        value = self.items(key, default)
        if not all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < n for i in value):
            raise self.wrong(key, f"layers 0 .. {n - 1}")
        return value

    def limits(self, key: str) -> list[float | None]:
        """A range (low, high) of two numbers, (0, None) where it is absent; None: no upper limit. JSON has no
        infinity: writers have several."""
        infinite = (None, float("inf"), "Infinity", {"__float__": "Infinity"})
        value = self.items(key, [0.0, None])
        if len(value) != 2 or not isinstance(value[0], int | float):
            raise self.wrong(key, "two numbers")
        return [value[0], None if value[1] in infinite else value[1]]

    def section(self, key: str) -> "Keys":
        """A mapping inside; an empty one where it is absent or null."""
        value = self._of(key, None)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.wrong(key, "a mapping")
        return Keys(value, f"{self.at}{key}.")

    def given(self, key: str) -> Any:
        """The value as it is, None where it is absent."""
        return self._of(key, None)

    def only(self, key: str, *covered: Any, default: Any = REQUIRED) -> Any:
        """A value that must be one of those that our mixers cover. Raises NotCovered for another one."""
        value = self._of(key, default)
        if value not in covered:
            raise self.wrong(key, " | ".join(map(str, covered)), NotCovered)
        return value

    def no_others(self, harmless: tuple[str, ...] = ()) -> None:
        """Raises NotCovered for a key that was not read and is not among the harmless ones."""
        for key in self.mapping:
            if key not in self.read and key not in harmless:
                raise self.wrong(key, "no such key", NotCovered)

    def wrong(self, key: str, allowed: str, kind: type[CheckpointError] = CheckpointError) -> CheckpointError:
        """The error for a value. kind: of the error."""
        given = self.mapping.get(key, "nothing")
        return kind(f"{CONFIG_JSON}: {ConfigError(self.at + key, given, allowed)}")

    def _of(self, key: str, default: Any) -> Any:
        self.read.add(key)
        if key in self.mapping:
            return self.mapping[key]
        if default is REQUIRED:
            raise self.wrong(key, "a value")
        return default
