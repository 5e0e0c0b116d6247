"""Arguments into config files, folders, key=value settings and options. Raises ConfigError for anything else."""

from dataclasses import dataclass, field
from pathlib import Path

from lcprobe.errors import ConfigError, nearest_name

COMMON_OPTIONS = ("--help", "-h", "--version")
LIST_OPTIONS = {"--harness": "names of lm-eval tasks", "--frozen": "files of JSON lines"}
"""Options of `evaluate` that take the words after them, up to the next option, setting or config, and what these
are."""


@dataclass
class Arguments:
    """files: configs, as written. overrides: key=value. flags: options that take nothing. lists: what follows each of
    LIST_OPTIONS."""

    files: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)


def read_arguments(words: list[str], flags: tuple[str, ...] = (), list_options: tuple[str, ...] = ()) -> Arguments:
    """flags, list_options: those that the command has besides COMMON_OPTIONS. Raises ConfigError for a word that is
    none of these."""
    rest, lists = _take_lists(words, list_options)
    arguments = Arguments(lists=lists)
    options = (*flags, *COMMON_OPTIONS, *list_options)
    for word in rest:
        if word in flags:
            arguments.flags.append(word)
        elif word.startswith("-"):
            raise ConfigError("command line", word, " | ".join(options), nearest_name(word, options))
        elif "=" in word:
            arguments.overrides.append(word)
        elif word.endswith((".yaml", ".yml")):
            arguments.files.append(word)
        elif Path(word).is_dir():
            arguments.folders.append(Path(word))
        else:
            allowed = "an existing .yaml file or folder, key=value, or an option (--help lists them)"
            raise ConfigError("command line", word, allowed)
    return arguments


def no_folders(arguments: Arguments, allowed: str) -> None:
    """Raises ConfigError where a folder is given to a command that takes none."""
    if arguments.folders:
        raise ConfigError("command line", str(arguments.folders[0]), allowed)


def _take_lists(words: list[str], options: tuple[str, ...]) -> tuple[list[str], dict[str, list[str]]]:
    """Words that belong to no list option, and those of each. Raises ConfigError for a list option that nothing
    follows."""
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    current = rest
    for word in words:
        if word in options:
            current = lists.setdefault(word, [])
            continue
        if word.startswith("-") or "=" in word or word.endswith((".yaml", ".yml")):
            current = rest
        if current is rest or word not in current:
            current.append(word)
    for option, given in lists.items():
        if not given:
            raise ConfigError(option, "nothing", LIST_OPTIONS[option])
    return rest, lists
