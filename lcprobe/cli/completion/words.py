"""What can be completed: commands, their options, keys of the config with their values, and names after --help, all
read from where they are defined."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lcprobe.cli.help import INTRODUCTIONS, OVERVIEW, WITH_OWN_SETTINGS, own_settings
from lcprobe.cli.pages import LISTS, entry_names
from lcprobe.config import Config
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import describe_fields
from lcprobe.tasks.presets import PRESETS

OPTION = re.compile(r"^ {2}(--[a-z-]+)|[\[ ](--[a-z-]+)[\] ;:]", re.MULTILINE)
COMMAND = re.compile(r"^ {2}([a-z]+) +\S", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""What a value or a name may consist of; it needs no quotes in a shell."""
WITHOUT_SETTINGS = {"score", "consolidate", "work", "status", "sync", "records", "figure", "table", "completion"}
"""Commands that take no keys of the config."""
WITHOUT_FILES = {"completion"}
"""Commands that take no files and folders."""
ANY_AXIS = "grid.seed"
"""Stands for all keys of `grid`: they are any keys."""


@dataclass(frozen=True)
class Words:
    """options: by command. keys: of the config, by name with their values, empty where these are free. own_keys: by
    command, those that only it takes. names: after --help. sub: the words that follow a command at once."""

    options: dict[str, list[str]]
    keys: dict[str, list[str]]
    own_keys: dict[str, dict[str, list[str]]]
    names: list[str]
    sub: dict[str, list[str]]

    @property
    def commands(self) -> list[str]:
        """All commands."""
        return list(self.options)

    def keys_of(self, command: str) -> dict[str, list[str]]:
        """The keys of a command: its own and, unless it is told nothing of the config, those of the config."""
        own = self.own_keys.get(command, {})
        return own if command in WITHOUT_SETTINGS else {**own, **self.keys}


def completion_words(shells: Iterable[str], data_commands: Iterable[str]) -> Words:
    """Everything that can be completed. shells, data_commands: what follows `completion` and `data`."""
    commands = [name for name in COMMAND.findall(OVERVIEW) if name in INTRODUCTIONS]
    options = {name: _options(INTRODUCTIONS[name]) for name in commands}
    names = {*LISTS, *PRESETS, *entry_names()}
    settings = {command: own_settings(command) for command in WITH_OWN_SETTINGS}
    own = {
        command: {k: _values(kind) for k, kind, _, _ in describe_fields(cls, "")} for command, cls in settings.items()
    }
    sub = {"data": list(data_commands), "records": ["compact"], "completion": list(shells)}
    return Words(options, config_keys(), own, sorted(name for name in names if re.fullmatch(r"[\w./-]+", name)), sub)


def config_keys() -> dict[str, list[str]]:
    """The keys that a config may have with their values, those of mixers included."""
    keys = {key: _values(kind) for key, kind, _, _ in describe_fields(Config, "")}
    keys["model.positional"] = list(POSITIONAL)
    keys["pe.extend"] = ["none", *EXTENSIONS]
    keys["train.extend"] = list(EXTENSIONS)
    del keys["model.mixers"], keys["grid"]
    keys[ANY_AXIS] = []
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
