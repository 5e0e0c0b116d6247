"""A data set on the Hugging Face hub, or a folder that `datasets` can load, streamed with `datasets`."""

import logging
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lcprobe.data.documents import Document
from lcprobe.data.sources.contract import Place, Source, SourceConfig
from lcprobe.data.sources.file_kinds import JSON, documents_of, kind_of_file
from lcprobe.data.sources.listing import Listing, file_facts, files_below, list_folder, refuse_twice
from lcprobe.data.sources.rows import text_of_row
from lcprobe.errors import DataError, LcprobeError, read_error
from lcprobe.files import check_path
from lcprobe.hub import hub_error, hub_is_unreachable, without_retries

ROWS_PER_STATE = 1000
"""Rows between two states of `datasets` that reading can go on from: it takes one within the time of a few rows."""


@dataclass(frozen=True)
class HubConfig(SourceConfig):
    """Settings of a hub data set, whose split `train` is read."""

    name: str
    """Name of the data set on the hub, such as HuggingFaceFW/fineweb-edu, or a local folder."""
    config: str | None = None
    """Configuration of the data set; null: its default one."""
    revision: str | None = None
    """Commit, tag or branch of the data set on the hub; null: the newest when it is prepared."""

    def check(self, at: str) -> None:
        """Raises ConfigError for an empty name, and for one that no folder can have."""
        super().check(at)
        check_path(f"{at}.name", self.name)


class HubDataset(Source[HubConfig]):
    """A hub data set, one document per row."""

    Config = HubConfig

    def __init__(self, config: HubConfig):
        super().__init__(config)
        self._rows, self._of_rows, self._builder = 0, None, None

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
        `text_of_row`; ServerError where network or hub do not give it now."""
        return self.documents_from(field, [])

    def documents_from(self, field: str, place: Place) -> Iterator[Document]:
        """See Source. A place is the number of rows, a state of `datasets`, and the rows that are done since; of a
        folder's JSON, the number of a file and of its rows."""
        builder, found = self._found()
        if isinstance(found, list):
            first, skip = place or (0, 0)
            for number in range(first, len(found)):
                place[:] = [number, skip if number == first else 0]
                for document in documents_of(found[number], field, place[1]):
                    place[1] += 1
                    yield document
            return
        splits = builder.info.splits
        self._of_rows = splits["train"].num_examples if splits and "train" in splits else None
        self._rows, state, since = place or (0, None, 0)
        try:
            if state is not None:
                found.load_state_dict(state)
            rows = islice(iter(found), since, None)
        except Exception as error:  # see below
            raise self._failed(error) from None
        while True:
            try:
                row = next(rows)
                self._rows, since = self._rows + 1, since + 1
                if since == ROWS_PER_STATE:
                    state, since = found.state_dict(), 0
            except StopIteration:
                return
            except Exception as error:  # network, hub and file errors have no common base
                raise self._failed(error) from None
            place[:] = [self._rows, state, since]
            yield text_of_row(row, field, f"{self._written}: row {self._rows}")

    def share_read(self) -> float | None:
        """Of the rows, where the data set says how many it has."""
        return self._rows / self._of_rows if self._of_rows else None

    def version(self) -> str:
        """The commit that is read."""
        return "" if self._is_folder else str(self._found()[0].hash or "")

    def is_local(self) -> bool:
        """Only a folder is."""
        return self._is_folder

    def notes(self) -> list[str]:
        """Of a folder, the files that are not read; of the hub, whether later changes are noticed."""
        if self._is_folder:
            return self._passed_over().notes(self._written)
        if self.config.revision is not None:
            return []
        return [f"{self._written}: no revision is pinned, so that later changes on the hub are not noticed"]

    def _passed_over(self) -> Listing:
        """The files of a folder that `datasets` does not take for the split `train`: it reads one kind of file."""
        folder, files = Path(self.config.name), self._found()[0].config.data_files or {}
        read = {os.path.realpath(name) for name in files.get("train") or []}
        listed, rest = list_folder(folder), Listing()
        reasons = {name: reason for reason, names in listed.passed_over.items() for name in names}
        for path in sorted(files_below(folder)) if read else []:
            name = path.relative_to(folder).as_posix()
            if os.path.realpath(path) not in read:
                rest.pass_over(reasons.get(name, "that datasets does not take for the split train"), name)
        return rest

    def _found(self) -> tuple[Any, Any]:
        """The builder of `datasets`, and the files of JSON in a folder that are the split `train`; of everything else
        its data set, streamed. Raises ServerError at once where the hub is asked for and cannot be reached, DataError
        where that was asked for."""
        why = None if self._is_folder else hub_is_unreachable()
        try:
            with without_retries() if why else nullcontext():
                return self._asked()
        except Exception as error:  # see above
            raise self._failed(error, why) from None

    def _asked(self) -> tuple[Any, Any]:
        import datasets
        from datasets.packaged_modules.json.json import JsonConfig

        datasets.logging.set_verbosity(logging.CRITICAL)  # what it would say is in the errors
        builder = self._builder = self._builder or datasets.load_dataset_builder(
            self.config.name, self.config.config, revision=self.config.revision
        )
        whole = isinstance(builder.config, JsonConfig) and builder.config.field is None
        if self._is_folder and whole:
            split = (builder.config.data_files or {}).get("train") or []
            files = [Path(name) for name in split if kind_of_file(Path(name)) in JSON and os.path.isfile(name)]
            if files and len(files) == len(split):
                return builder, files
        return builder, builder.as_streaming_dataset(split="train")

    def _failed(self, error: Exception, unreachable: str | None = None) -> LcprobeError:
        """What stopped `datasets`: the disk, the network, or something that the user should read in its own words.
        unreachable: why the hub was not asked."""
        if self._is_folder and isinstance(error, OSError) and error.errno is not None:
            return read_error(error.filename or self._written, error)
        allowed = "allowed: an online data set or local files"
        if unreachable is not None:
            return hub_error(f"{self._written}: {unreachable}; {allowed}", None, DataError)
        words = next(iter(str(error).splitlines()), "") or type(error).__name__
        unread = DataError(f"{self._written}: not readable by datasets ({type(error).__name__}: {words})")
        if self._is_folder:
            return unread
        line = f"{self._written}: not reachable ({type(error).__name__}: {words}); {allowed}"
        return hub_error(line, error, lambda line: unread)

    @property
    def _is_folder(self) -> bool:
        return os.path.isdir(self.config.name)

    @property
    def _written(self) -> str:
        return ":".join(["hf", self.config.name, *([self.config.config] if self.config.config else [])])
