"""A data set on the Hugging Face hub, streamed with `datasets`."""

from collections.abc import Iterator
from dataclasses import dataclass

from lcprobe.data.sources.contract import Source, non_empty
from lcprobe.errors import DataError


@dataclass(frozen=True)
class HubConfig:
    """Settings of a hub data set, whose split `train` is read."""

    name: str
    """Name of the data set on the hub, such as HuggingFaceFW/fineweb-edu."""
    config: str | None = None
    """Configuration of the data set; null: its default one."""


class HubDataset(Source[HubConfig]):
    """A hub data set, one document per row."""

    Config = HubConfig

    def check(self) -> None:
        """Checks nothing: whether the data set can be reached shows when it is read."""

    def fingerprint(self) -> list[list[str | int]]:
        """The name alone: the contents may change."""
        return [[self._written, "online"]]

    def documents(self, field: str) -> Iterator[str]:
        """Every non-empty row. Raises DataError for rows without the field, and where the data set cannot be
        reached."""
        import datasets

        try:
            rows = datasets.load_dataset(self.config.name, self.config.config, split="train", streaming=True)
            for row in rows:
                yield from non_empty(row[field])
        except KeyError:
            raise DataError(
                f"{self._written}: rows have no {field!r}; allowed: a text column (data.text_field)"
            ) from None
        except Exception as error:  # network, hub and script errors have no common base
            reason = f"not reachable ({type(error).__name__})"
            raise DataError(f"{self._written}: {reason}; allowed: an online data set or local files") from None

    @property
    def _written(self) -> str:
        return ":".join(["hf", self.config.name, *([self.config.config] if self.config.config else [])])
