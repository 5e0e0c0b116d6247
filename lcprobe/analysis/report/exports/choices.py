"""What `lcprobe figure` and `lcprobe table` can be told. Imports nothing heavy: `--help` prints it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from lcprobe.errors import ConfigError, require
from lcprobe.files import check_path
from lcprobe.schema import Converter

FIGURE_SUFFIXES = (".pdf", ".svg", ".png", ".json")
TABLE_SUFFIXES = (".tex", ".csv")
MAX_PIXELS = 4000


@dataclass(frozen=True)
class Selection:
    """What is kept of results, in this order; empty: all. models: runs, groups of seeds or architectures, by the
    names that the report has."""

    models: Sequence[str] = ()
    tasks: Sequence[str] = ()
    formats: Sequence[str] = ()
    lengths: Sequence[int] = ()


class _Listed(Converter):
    """One name, several after commas, or a list: `models=a,b`."""

    def convert(self, value: object, key: str) -> list[str]:
        """Raises ConfigError for anything else."""
        if isinstance(value, str | int):
            return [part.strip() for part in str(value).split(",") if part.strip()]
        if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
            return [str(one) for one in value]
        raise ConfigError(key, value, self.allowed())

    def allowed(self) -> str:
        """See Converter."""
        return "a name, several with commas between, or a list"


class _ListedNumbers(_Listed):
    """Whole numbers, as names are listed."""

    def convert(self, value: object, key: str) -> list[int]:  # type: ignore[override]
        """Raises ConfigError for anything else."""
        found = super().convert(value, key)
        require(key, value, all(text.isdecimal() for text in found), self.allowed())
        return [int(text) for text in found]

    def allowed(self) -> str:
        """See Converter."""
        return "tokens: 1024, several with commas between, or a list"


LISTED, NUMBERS = _Listed(), _ListedNumbers()


@dataclass(frozen=True)
class Choices:
    """Settings of both commands."""

    out: str | None = None
    """File to write, in the format of its suffix, or an existing folder; null: NAME in the working directory."""
    models: Annotated[list[str], LISTED] = field(default_factory=list)
    """Models, in this order: runs, groups of seeds or architectures, by the names in the report; empty: all."""
    task: Annotated[list[str], LISTED] = field(default_factory=list)
    """Tasks; empty: all."""
    format: Annotated[list[str], LISTED] = field(default_factory=list)
    """Formats as haystack/key/value, such as corpus/words/numbers; empty: all."""
    lengths: Annotated[list[int], NUMBERS] = field(default_factory=list)
    """Lengths in tokens; empty: all."""
    names: dict[str, str] = field(default_factory=dict)
    """Display names in place of those of the report, as in study.names: names.mamba2=Mamba-2."""
    title: str | None = None
    """Title of the figure, or caption of the table; null: as in the report; an empty text: none."""

    @property
    def selection(self) -> Selection:
        """What is kept of the results."""
        return Selection(self.models, self.task, self.format, self.lengths)

    def check(self, at: str) -> None:
        """Raises ConfigError for a file that cannot be, or is in no folder that there is, and for a title of several
        lines."""
        if self.out is not None:
            check_path("out", self.out, written=True)
            require(
                "out", self.out, Path(self.out).parent.is_dir(), "a file in a folder that exists, or such a folder"
            )
        if self.title is not None:
            require("title", self.title, self.title.isprintable() and len(self.title) <= 200, "one line")

    def suffix(self, allowed: tuple[str, ...]) -> str:
        """Of the file to write; the first allowed where out is a folder or null. Raises ConfigError for another."""
        if self.out is None or Path(self.out).is_dir():
            return allowed[0]
        suffix = Path(self.out).suffix.lower()
        ends = f"an existing folder, or a file that ends in {' | '.join(allowed)}"
        require("out", self.out, suffix in allowed, ends)
        return suffix

    def path(self, name: str, suffix: str) -> Path:
        """The file of a figure or table of this name."""
        if self.out is None:
            return Path(f"{name}{suffix}")
        return Path(self.out) / f"{name}{suffix}" if Path(self.out).is_dir() else Path(self.out)


@dataclass(frozen=True)
class FigureChoices(Choices):
    """Settings of `lcprobe figure`."""

    width: int | None = None
    """Width of a panel in CSS pixels (1/96 inch), axes and legend not counted; null: as in the report."""
    height: int | None = None
    """Height of a panel in CSS pixels; null: as in the report."""

    def check(self, at: str) -> None:
        """Raises ConfigError as Choices, for sizes out of range, and for another suffix than a figure's."""
        super().check(at)
        for name in ("width", "height"):
            size = getattr(self, name)
            require(name, size, size is None or 20 <= size <= MAX_PIXELS, f"20 .. {MAX_PIXELS}")
        self.suffix(FIGURE_SUFFIXES)


@dataclass(frozen=True)
class TableChoices(Choices):
    """Settings of `lcprobe table`."""

    columns: Annotated[list[str], LISTED] = field(default_factory=list)
    """Columns, in this order; empty: all."""

    def check(self, at: str) -> None:
        """Raises ConfigError as Choices, and for another suffix than a table's."""
        super().check(at)
        self.suffix(TABLE_SUFFIXES)
