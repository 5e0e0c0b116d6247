"""Arguments into config files, folders, key=value settings and options. Raises ConfigError for anything else."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from lcprobe.errors import ConfigError, nearest_name

COMMON_OPTIONS = ("--help", "-h", "--version")
LIST_OPTIONS = {"--harness": "names of lm-eval tasks", "--frozen": "files of JSON lines"}
"""Options of `evaluate` that take the words after them, up to the next option, setting or config, and what these
are."""

SECTIONS = (
    "study", "seed", "model", "match", "kernels", "data", "train", "probe", "pe", "compat", "track",
    "launcher", "grid",
)  # fmt: skip
"""What a key of key=value begins with."""
ADDRESSES = ("hf:", "openai:", "vllm:")
"""What an address of a published model begins with."""
RESULTS = ("study.yaml", "config.yaml", "checkpoints", "model.safetensors", "model.index.json")
"""What a study's, run's or checkpoint's folder has."""


@dataclass
class Arguments:
    """files: configs, as written. models: addresses of published models. overrides: key=value. flags: options that
    take nothing. lists: what follows each of LIST_OPTIONS."""

    files: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
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
        elif word.startswith(ADDRESSES) or (word.endswith(".pth") and os.path.isfile(word)):
            arguments.models.append(word)
        elif _is_setting(word):
            arguments.overrides.append(word)
        elif os.path.isdir(word):
            arguments.folders.append(Path(word))
        elif _is_config(word):
            arguments.files.append(word)
        else:
            allowed = "an existing .yaml file or folder, key=value, or an option (--help lists them)"
            if os.sep in word:
                allowed += "; train.py writes the folder of a study, so it comes first"
            raise ConfigError("command line", word, allowed)
    return arguments


def no_folders(arguments: Arguments, allowed: str) -> None:
    """Raises ConfigError where a folder or a published model is given to a command that takes none."""
    for given in [*arguments.folders, *arguments.models]:
        raise ConfigError("command line", str(given), allowed)


def take_option(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """What follows each mention of an option, and the other words."""
    values, rest, following = [], [], False
    for word in words:
        if following:
            values.append(word)
        elif word != option:
            rest.append(word)
        following = word == option and not following
    return values, rest


def take_number(words: list[str], option: str, least: int) -> tuple[int | None, list[str]]:
    """The number that follows an option (None: the option is not there), and the other words. Raises ConfigError for
    anything but one whole number."""
    values, rest = take_option(words, option)
    if option not in words:
        return None, rest
    given = " ".join(values)
    if not re.fullmatch(r"[0-9]{1,9}", given) or int(given) < least:
        raise ConfigError(option, given or "nothing", f"one whole number >= {least}")
    return int(given), rest


def words_after(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """What follows an option, and what is before it. Raises ConfigError for nothing and for another option there."""
    place = words.index(option)
    names = words[place + 1 :]
    if not names or any(name.startswith("-") for name in names):
        raise ConfigError(option, " ".join(names) or "nothing", "train, probe, or names of runs, trials and models")
    return names, words[:place]


def _is_setting(word: str) -> bool:
    """Whether a word is key=value, and no path that has = in it. A config that is there, and a folder with results,
    are what they are whatever their names; otherwise what begins with a section of the config is a setting, and of
    the rest what is no path, so that a mistyped key is named as one."""
    key, equals, _ = word.partition("=")
    if not equals or (_is_config(word) and os.path.isfile(word)) or _has_results(word):
        return False
    if belongs_to_config(word):
        return True
    return os.sep not in key and not _is_config(word) and not os.path.isdir(word)


def belongs_to_config(word: str) -> bool:
    """Whether the key of key=value is one of the config's."""
    return re.split(r"[.\[]", word.partition("=")[0])[0].strip() in SECTIONS


def _has_results(word: str) -> bool:
    return os.path.isdir(word) and any(os.path.exists(os.path.join(word, name)) for name in RESULTS)


def _is_config(word: str) -> bool:
    return word.lower().endswith((".yaml", ".yml"))


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
        setting = _is_setting(word) and not os.path.isfile(word)
        if word.startswith("-") or setting or _is_config(word):
            current = rest
        if current is rest or word not in current:
            current.append(word)
    for option, given in lists.items():
        if not given:
            raise ConfigError(option, "nothing", LIST_OPTIONS[option])
    return rest, lists
