"""Pages that are made from the code when the site is built: config keys, the command line, registered parts, record
columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from lcprobe.cli import help as cli_help
from lcprobe.cli.pages import KINDS, docs_of
from lcprobe.config import Config
from lcprobe.data.config import Recipe, Stage
from lcprobe.probing.config import Grid
from lcprobe.schema import describe_fields, field_docs
from lcprobe.tasks.presets import PRESETS

LISTS = (("data.recipes.NAME", Recipe), ("data.mixture[i]", Stage), ("probe.grids[i]", Grid))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/config.md": "\n".join(config_page()),
        "reference/cli.md": "\n".join(cli_page()),
        "reference/registries.md": "\n".join(registries_page()),
        "reference/records.md": "\n".join(records_page()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def config_page() -> Iterator[str]:
    """Every key with type, default and meaning, room by room."""
    yield "# Configuration\n"
    yield (
        "Files merge from left to right, then `key=value`. `${train.lr}` is another key's value, "
        "`${times:300,${train.batch_tokens}}` a product. Settings of mixers, encodings, tasks and other registered "
        "parts "
        "are on [their own page](registries.md). No code runs from a config.\n"
    )
    rooms: dict[str, list[tuple[str, str, str, str]]] = {}
    for entry in describe_fields(Config, ""):
        rooms.setdefault(entry[0].partition(".")[0], []).append(entry)
    about = field_docs(Config)
    for room, entries in rooms.items():
        yield f"## {room}\n\n{about[room]}\n"
        yield from _table(entries)
        for title, cls in LISTS:
            if title.partition(".")[0] == room:
                yield f"### {title}\n"
                yield from _table(list(describe_fields(cls, title)))


def cli_page() -> Iterator[str]:
    """What `--help` says, without the list of settings."""
    yield "# Command line\n"
    for title, text in cli_help.intros().items():
        yield f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


def registries_page() -> Iterator[str]:
    """Every registered name: what it is, and its settings."""
    yield "# Registered parts\n"
    yield "A name stands for `{type: name}`; settings are the other keys.\n"
    for title, _, where, registry in KINDS.values():
        yield f"## {title}\n\nIn {where}.\n"
        for name in registry:
            cls = registry.load(name)
            yield f"### {name} {{: #{title.split()[0].lower()}-{name} }}\n"
            yield f"{_doc(cls)}\n"
            yield from _table(list(describe_fields(cls.Config, "")))
    yield "## Presets of tasks\n\nA preset is used wherever a task is configured, with settings on top.\n"
    yield "| preset | written out |\n|---|---|"
    for name, settings in PRESETS.items():
        yield f"| `{name}` | `{_inline(settings)}` |"


def records_page() -> Iterator[str]:
    """Columns of the records."""
    from lcprobe.records import COLUMNS, CONTEXT_COLUMNS

    yield "# Records\n"
    yield (
        "`<study>/records/*.parquet` has one row per query, `<study>/context/*.parquet` one row per measurement on "
        "plain text. "
        "pyarrow, pandas, polars and DuckDB (`records/**/*.parquet`) read the folder as one table; from Python: "
        "`lcprobe.load_study(folder).records()`; [in the shell](../how-to/records.md): `lcprobe records`.\n"
    )
    for title, columns in (
        ("One row per query", COLUMNS),
        ("One row per measurement on plain text", CONTEXT_COLUMNS),
    ):
        yield f"## {title}\n\n| column | type | |\n|---|---|---|"
        for column in columns:
            yield f"| `{column.name}` | {column.type} | {_cell(column.meaning)} |"
        yield ""


def _table(entries: list[tuple[str, str, str, str]]) -> Iterator[str]:
    if not entries:
        yield "No settings.\n"
        return
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, kind, default, doc in entries:
        yield f"| `{key}` | {_cell(kind)} | {_code(default)} | {_cell(doc)} |"
    yield ""


def _doc(cls: type) -> str:
    """The docstring of a class, and of its module where that has the equation."""
    own, module = docs_of(cls)
    return f"{own}\n\n```text\n{module}\n```" if module else own


def _inline(settings: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{k}: {_inline(v) if isinstance(v, dict) else v}" for k, v in settings.items()) + "}"


def _code(text: str) -> str:
    return "required" if text == "required" else f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
