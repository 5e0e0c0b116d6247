"""Pages of what a config can name: `--help mamba2`, `--help yarn`, and the lists of names, `--help mixers`.

A page is the docstrings of the registered class and of its module (equation, source, what differs from the release)
and its settings. Lists read docstrings from the source, without importing what they name.
"""

import ast
import importlib.util
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lcprobe.choices import Registry
from lcprobe.cli.levels import FACTORS, level_pages
from lcprobe.config import Config
from lcprobe.data.sources import SOURCES
from lcprobe.errors import ConfigError, NotHereError, listed, nearest_name
from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mlps import MLPS
from lcprobe.models.norms import NORMS
from lcprobe.models.positional import POSITIONAL, POSITIONS, TEMPERATURES
from lcprobe.schema import describe_fields
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.tasks import TASKS
from lcprobe.tasks.presets import PRESETS
from lcprobe.training import INITIAL_STATES

HELP_WIDTH = 112
"""Columns of lists."""


class Kind(NamedTuple):
    """What the entries of a registry are. title: of their section in the reference; one: what one of them is called;
    where: keys of the config that take their names."""

    title: str
    one: str
    where: str
    registry: Registry


KINDS: dict[str, Kind] = {
    "mixers": Kind("Mixers", "mixer", "model.mixers.NAME, and names in model.layout", MIXERS),
    "mlps": Kind("MLPs", "MLP", "model.mlp, and +NAME in model.layout", MLPS),
    "norms": Kind("Norms", "norm", "model.norm", NORMS),
    "encodings": Kind("Positional encodings", "encoding", "model.positional, model.encodings.NAME", POSITIONAL),
    "positions": Kind("Positions drawn in training", "positions", "model.positions", POSITIONS),
    "temperatures": Kind(
        "Temperatures of the softmax",
        "temperature",
        "model.mixers.NAME.temperature, +NAME in a pattern of encodings",
        TEMPERATURES,
    ),
    "extensions": Kind("Extensions at evaluation", "extension", "pe.extend, train.extend", EXTENSIONS),
    "tasks": Kind("Tasks", "task", "probe.tasks.NAME, data.recipes.NAME.task", TASKS),
    "initial_states": Kind("Initial states", "initial state", "train.initial_state", INITIAL_STATES),
    "formats": Kind(
        "Formats of published checkpoints",
        "checkpoint format",
        "Model.export; study.models recognises them, and gives the settings",
        FORMATS,
    ),
    "launchers": Kind("Launchers", "launcher", "launcher", LAUNCHERS),
    "sources": Kind("Sources of documents", "source", "data.corpus", SOURCES),
}
"""By the name of their list."""
FAMILIES = {"fla": "a layer of flash-linear-attention by its class, fla:GatedDeltaNet (docs/how-to/own-study.md)"}
"""What the members of a family of a registry are."""
LISTS = (*KINDS, *FACTORS, "presets", "policies")
"""What `--help` lists."""


def page(word: str, others: Iterable[str] = ()) -> str:
    """The list of that name, or the pages of everything that is registered under it. Raises ConfigError for an
    unknown name. others: what else may be asked for, for the error."""
    if word in LISTS:
        return "\n".join(_list(word))
    if word in PRESETS:
        return f"preset {word}: a task with settings, {_as_yaml(PRESETS[word])}\n\n{page(PRESETS[word]['type'])}"
    found, levels = [kind for kind in KINDS.values() if word in kind.registry], level_pages(word)
    if not found and not levels and word in (policies := _policies()):
        return f"policy {word}: in probe.policies, of evaluate --cheat\n\n{policies[word]}"
    if not found and not levels:
        names = {*entry_names(), *PRESETS, *policies}
        known = [*others, *LISTS]
        section = word.partition(".")[0]
        if section != word and section in known:
            keys = [key for key, *_ in describe_fields(Config, "")]
            same = next((key for key in keys if key.endswith(f".{word.rpartition('.')[2]}")), None)
            raise ConfigError("--help", word, f"--help {section} lists its keys", same or nearest_name(word, keys))
        raise ConfigError(
            "--help", word, f"{listed(known)}, or a name of a list", nearest_name(word, {*known, *names})
        )
    return "\n\n".join([*("\n".join(_page(kind, word)) for kind in found), *levels])


def entry_names() -> set[str]:
    """Everything that has a page, but presets and policies."""
    of_levels = {name for factor in FACTORS.values() for name in factor.levels}
    return of_levels | {name for kind in KINDS.values() for name in kind.registry}


def docs_of(cls: type) -> tuple[str, str]:
    """The docstring of a class, and that of its module where no other registered class is of the module."""
    module = inspect.getmodule(cls)
    alone = module is not None and _modules().count(module.__name__) == 1
    return inspect.cleandoc(cls.__doc__ or ""), inspect.cleandoc(module.__doc__ or "") if module and alone else ""


def _modules() -> list[str]:
    """The modules of everything that is registered."""
    return [target.partition(":")[0] for kind in KINDS.values() for target in kind.registry.values()]


def _page(kind: Kind, name: str) -> Iterator[str]:
    try:
        cls = kind.registry.load(name)
    except NotHereError as error:
        family = FAMILIES[name.partition(":")[0]]
        yield f"{kind.one} {name}: {family}\n\nits settings are not shown here: {error.allowed}"
        return
    except ConfigError as error:
        raise ConfigError("--help", name, error.allowed, error.near) from None
    own, module = docs_of(cls)
    yield f"{kind.one} {name}: in {kind.where}\n"
    yield module or own
    if not module and (whole := inspect.getmodule(cls)):
        yield f"\n{inspect.cleandoc(whole.__doc__ or '')}"
    entries = list(describe_fields(cls.Config, ""))
    yield "\nsettings (key: type, default)\n" if entries else "\nno settings"
    for entry in entries:
        yield from setting(*entry)


def setting(key: str, kind: str, default: str, doc: str) -> list[str]:
    """The lines of one setting."""
    shortened = default if len(default) <= 60 else default[:57] + "..."
    head, indent = f"  {key}: {kind}, {shortened or repr(shortened)}", " " * 6
    return [
        *textwrap.wrap(head, HELP_WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False, break_long_words=False),
        *textwrap.wrap(doc, HELP_WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False),
    ]


def _list(word: str) -> Iterator[str]:
    if word == "presets":
        yield "presets of tasks, in probe.tasks.NAME and data.recipes.NAME.task\n"
        yield from _table({name: _as_yaml(settings) for name, settings in PRESETS.items()})
    elif word == "policies":
        yield "policies of evaluate --cheat, in probe.policies\n"
        yield from _table({name: _sentence(doc) for name, doc in _policies().items()})
    elif word in FACTORS:
        yield f"{word.replace('_', ' ')}, in {FACTORS[word].where}\n"
        yield from _table(FACTORS[word].levels)
    else:
        kind = KINDS[word]
        yield f"{kind.title.lower() if word != 'mlps' else kind.title}, in {kind.where}\n"
        rows = {name: _sentence(_first_doc(target)) for name, target in kind.registry.items()}
        yield from _table(rows | {f"{family}:...": FAMILIES[family] for family in kind.registry.families})


def _as_yaml(settings: Mapping[str, Any]) -> str:
    """Settings as they are written in a config, on one line: `{type: niah, n_keys: 4}`."""
    return yaml.safe_dump(dict(settings), default_flow_style=True, sort_keys=False, width=100_000).strip()


def _policies() -> dict[str, str]:
    """Docstrings of the policies by name."""
    from lcprobe.probing.policies.cheating import POLICIES  # imports torch

    return {name: inspect.getdoc(policy) or "" for name, policy in POLICIES.items()}


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows)) + 2
    for name, text in rows.items():
        lines = textwrap.wrap(text, HELP_WIDTH - width - 2, break_on_hyphens=False) or [""]
        yield f"  {name:{width}}{lines[0]}"
        yield from (f"  {'':{width}}{line}" for line in lines[1:])


def _first_doc(target: str) -> str:
    """The docstring that the page of "module:Class" begins with, from the module's source: that of the module where
    no other registered class is in it, else of the class."""
    module, _, name = target.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    if _modules().count(module) == 1:
        return ast.get_docstring(tree) or ""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return ast.get_docstring(classes[0]) or ""


def _sentence(doc: str) -> str:
    """The first paragraph, on one line."""
    return " ".join(doc.partition("\n\n")[0].split())
