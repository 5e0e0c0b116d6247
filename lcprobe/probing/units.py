"""Units of work, and the depth of the target needle in their samples.

The context is divided into strata of equal width, and every sample is probed once in each: at a place inside the
stratum that is drawn for the sample and is the same in all of its strata, lengths, formats, controls and models. Over
the strata of a sample its depth is uniform in [0, 1), as that of every other needle is, so that no rank and no place
is likelier to have the target: a value at a fixed place is right as often as the stated chance says, over the grid
that is reported. At fixed depths it is not: over 0, .5 and 1 the first of four values is right in 36 %.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from lcprobe.files import digest_json
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import SUITE, Factors, Formats


def stratum_centres(strata: int) -> tuple[float, ...]:
    """The depth that stands for each stratum in tables: .1, .3 .. .9 of five; .5 of one."""
    return tuple((k + 0.5) / strata for k in range(strata))


def place_in_stratum(index: int) -> float:
    """Where in its stratum a sample's target is, 0 .. 1 of its width: of its own stream, whatever the task, so that
    it is independent of everything else that is drawn for the sample."""
    return float(Stream("place in the stratum", SUITE, index).uniform(1)[0])


class UnitKey(NamedTuple):
    """The factors that the cells of a unit have in common."""

    task: str
    formats: Formats
    length: int
    control: str

    @property
    def label(self) -> str:
        """`multikey corpus/words/numbers @512`, for progress and messages."""
        control = "" if self.control == "none" else f" {self.control}"
        return f"{self.task} {self.formats} @{self.length}{control}"


@dataclass(frozen=True)
class Unit:
    """Cells that differ only in the stratum of depth: scored together, stored in one file.

    strata: of depth; 1 where the needle has no place of its own. n: samples, the same ones in every stratum. first:
    index of the first sample; studies that must not share a sample start at different ones.
    """

    task: str
    formats: Formats
    length: int
    control: str
    strata: int
    n: int
    first: int = 0

    @property
    def label(self) -> str:
        """As that of its key."""
        return UnitKey(self.task, self.formats, self.length, self.control).label

    @property
    def cells(self) -> tuple[tuple[float, int], ...]:
        """(centre of the stratum, samples), ascending."""
        return tuple((centre, self.n) for centre in stratum_centres(self.strata))

    def rows(self) -> list[dict[str, Any]]:
        """The planned cells as rows, which the analysis compares with the records."""
        f = self.formats
        names = {"haystack": f.haystack, "key_format": f.key, "value_format": f.value, "control": self.control}
        at = {"task": self.task, **names, "length": self.length}
        return [{**at, "depth": depth, "strata": self.strata, "n": n} for depth, n in self.cells]

    def samples(self) -> list[tuple[float, Factors]]:
        """Every sample of every cell in the order of scoring: the cell's depth, and the factors with the depth that
        was drawn."""
        indices = range(self.first, self.first + self.n)
        places = [place_in_stratum(index) for index in indices]
        return [
            (centre, Factors(self.formats, self.length, (k + place) / self.strata, index, self.control))
            for k, centre in enumerate(stratum_centres(self.strata))
            for index, place in zip(indices, places, strict=True)
        ]

    def factors(self) -> list[Factors]:
        """Those of `samples`."""
        return [factors for _, factors in self.samples()]

    @property
    def samples_digest(self) -> str:
        """Digest of which samples it has and of the depths that were drawn for them, however they were."""
        return digest_json([[factors.depth, factors.index] for factors in self.factors()])


class TooFewTokens(NamedTuple):
    """A planned unit that is left out: task and formats, its length, and the least one."""

    what: str
    length: int
    least: int

    def __str__(self) -> str:
        return f"{self.what}: {self.length} tokens are too few (at least {self.least})"


class TooManyTokens(NamedTuple):
    """Planned units that are left out: task and formats, their lengths, and why they cannot have these."""

    what: str
    lengths: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {', '.join(map(str, self.lengths))} tokens are too many ({self.reason})"


@dataclass(frozen=True)
class Plan:
    """Units that can be built, and notes about those that cannot. too_short, too_long: those that are left out for
    their length."""

    units: list[Unit]
    notes: list[str]
    too_short: tuple[TooFewTokens, ...] = ()
    too_long: tuple[TooManyTokens, ...] = ()

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens of all samples, for one model."""
        return sum(unit.length * n for unit in self.units for _, n in unit.cells)
