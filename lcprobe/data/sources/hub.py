"""A data set on the Hugging Face hub, or a folder that `datasets` can load, streamed with `datasets`."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcprobe.data.documents import Document
from lcprobe.data.sources.contract import Source
from lcprobe.data.sources.file_kinds import JSON, documents_of, kind_of_file
from lcprobe.data.sources.listing import file_facts, files_below, list_folder, refuse_twice
from lcprobe.data.sources.rows import text_of_row
from lcprobe.errors import DataError
from lcprobe.files import check_path


@dataclass(frozen=True)
class HubConfig:
    """Settings of a hub data set, whose split `train` is read."""

    name: str
    """Name of the data set on the hub, such as HuggingFaceFW/fineweb-edu, or a local folder."""
    config: str | None = None
    """Configuration of the data set; null: its default one."""
    revision: str | None = None
    """Commit, tag or branch of the data set on the hub; null: the newest when it is prepared."""

    def check(self, at: str) -> None:
        """Raises ConfigError for an empty name, and for one that no folder can have."""
        check_path(f"{at}.name", self.name)


class HubDataset(Source[HubConfig]):
    """A hub data set, one document per row."""

    Config = HubConfig

    def check(self, field: str) -> None:
        """The first row of a local folder must have text, and no text be there twice; whether the hub can be reached
        shows when it is read."""
        if self._is_folder:
            refuse_twice(list_folder(Path(self.config.name)).files)
            next(self.documents(field), None)

    def fingerprint(self) -> list[list[str | int]]:
        """Path, size and time of each file of a local folder; of the hub the name and revision alone, since it may
        not be reachable."""
        if self._is_folder:
            return [[self._written, "folder"], *file_facts(sorted(files_below(Path(self.config.name))))]
        pinned: list[str | int] = [] if self.config.revision is None else [self.config.revision]
        return [[self._written, "online", *pinned]]

    def documents(self, field: str) -> Iterator[Document]:
        """The text of every row. `datasets` says which files are the split, and reads them, but for the JSON of a
        folder: that is read as everywhere. Raises DataError where the data set cannot be loaded, and as
        `text_of_row`."""
        found = self._found()
        if isinstance(found, list):
            for path in found:
                yield from documents_of(path, field)
            return
        number = 0
        while True:
            try:
                row = next(found)
            except StopIteration:
                return
            except Exception as error:  # network, hub and file errors have no common base
                raise self._failed(error) from None
            number += 1
            yield text_of_row(row, field, f"{self._written}: row {number}")

    def is_local(self) -> bool:
        """Only a folder is."""
        return self._is_folder

    def notes(self) -> list[str]:
        """Whether later changes are noticed."""
        if self._is_folder or self.config.revision is not None:
            return []
        return [f"{self._written}: no revision is pinned, so that later changes on the hub are not noticed"]

    def _found(self) -> list[Path] | Iterator[Any]:
        """The files of JSON in a folder that are the split `train`; of everything else its rows."""
        import datasets
        from datasets.packaged_modules.json.json import JsonConfig

        datasets.logging.set_verbosity(logging.CRITICAL)  # what it would say is in the errors
        try:
            builder = datasets.load_dataset_builder(
                self.config.name, self.config.config, revision=self.config.revision
            )
            whole = isinstance(builder.config, JsonConfig) and builder.config.field is None
            if self._is_folder and whole:
                split = (builder.config.data_files or {}).get("train") or []
                files = [Path(name) for name in split if kind_of_file(Path(name)) in JSON and os.path.isfile(name)]
                if files and len(files) == len(split):
                    return files
            return iter(builder.as_streaming_dataset(split="train"))
        except Exception as error:  # see above
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> DataError:
        """What stopped `datasets`: the network, or something that the user should read in its own words."""
        from datasets.exceptions import DatasetNotFoundError

        network = isinstance(error, ConnectionError | TimeoutError | DatasetNotFoundError) or _is_http(error)
        if network and not self._is_folder:
            reason = f"not reachable ({type(error).__name__})"
            return DataError(f"{self._written}: {reason}; allowed: an online data set or local files")
        words = next(iter(str(error).splitlines()), "") or type(error).__name__
        return DataError(f"{self._written}: not readable by datasets ({type(error).__name__}: {words})")

    @property
    def _is_folder(self) -> bool:
        return os.path.isdir(self.config.name)

    @property
    def _written(self) -> str:
        return ":".join(["hf", self.config.name, *([self.config.config] if self.config.config else [])])


def _is_http(error: BaseException) -> bool:
    """Whether an error, or one that it comes from, is of an HTTP library."""
    chain: BaseException | None = error
    while chain is not None:
        if type(chain).__module__.partition(".")[0] in ("requests", "httpx", "urllib3", "aiohttp", "huggingface_hub"):
            return True
        chain = chain.__cause__ or chain.__context__
    return isinstance(error, OSError)
