"""What can be completed: commands, their options, keys of the config with their values, and names after --help, all
read from where they are defined."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lcprobe.cli.help import INTRODUCTIONS, OVERVIEW
from lcprobe.cli.pages import KINDS, LISTS
from lcprobe.config import Config
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.schema import describe_fields
from lcprobe.tasks.presets import PRESETS

OPTION = re.compile(r"^ {2}(--[a-z-]+)|[\[ ](--[a-z-]+)[\] ;:]", re.MULTILINE)
COMMAND = re.compile(r"^ {2}([a-z]+) {2,}\S", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""What a value or a name may consist of; it needs no quotes in a shell."""
WITHOUT_SETTINGS = {"kernels", "score", "sync", "completion"}
"""Commands that take no keys of the config."""


@dataclass(frozen=True)
class Words:
    """options, keys: by command, the latter by a key's name with its values, empty where these are free. names: after
    --help. sub: the words that follow a command at once."""

    options: dict[str, list[str]]
    keys: dict[str, list[str]]
    explain_keys: dict[str, list[str]]
    names: list[str]
    sub: dict[str, list[str]]

    @property
    def commands(self) -> list[str]:
        """All commands."""
        return list(self.options)


def completion_words(shells: Iterable[str], data_commands: Iterable[str]) -> Words:
    """Everything that can be completed. shells, data_commands: what follows `completion` and `data`."""
    commands = [name for name in COMMAND.findall(OVERVIEW) if name in INTRODUCTIONS]
    options = {name: _options(INTRODUCTIONS[name]) for name in commands}
    names = {*LISTS, *PRESETS, *(name for kind in KINDS.values() for name in kind.registry)}
    own = {key: _values(kind) for key, kind, _, _ in describe_fields(ExplainConfig, "")}
    sub = {"data": list(data_commands), "completion": list(shells)}
    return Words(options, config_keys(), own, sorted(name for name in names if re.fullmatch(r"[\w./-]+", name)), sub)


def config_keys() -> dict[str, list[str]]:
    """The keys that a config may have with their values, those of mixers included."""
    keys = {key: _values(kind) for key, kind, _, _ in describe_fields(Config, "")}
    keys["model.positional"] = list(POSITIONAL)
    keys["pe.extend"] = ["none", *EXTENSIONS]
    keys["train.extend"] = list(EXTENSIONS)
    del keys["model.mixers"], keys["grid"]
    for mixer in MIXERS:
        for key, kind, _, _ in describe_fields(MIXERS.load(mixer).Config, f"model.mixers.{mixer}"):
            keys[key] = _values(kind)
    return keys


def _options(introduction: str) -> list[str]:
    found = [one or other for one, other in OPTION.findall(introduction)]
    return list(dict.fromkeys([*found, "--help", "--version"]))


def _values(kind: str) -> list[str]:
    """The values of a kind in words, `cosine | wsd | constant`; none where any may be given."""
    values = re.sub(r"(, or a mapping with `type`)?( or null)?$", "", kind).split(" | ")
    return values if len(values) > 1 and all(NAME.fullmatch(value) for value in values) else []
