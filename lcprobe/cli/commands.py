"""The commands: arguments in, exit code out. Heavy imports wait until the arguments are known to be good."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcprobe import __version__
from lcprobe.errors import ConfigError, nearest, run_command

OPTIONS = ("--plan", "--help", "-h", "--version")
LISTS = ("--harness", "--frozen")
"""Options of `evaluate.py` that take what follows, up to the next option, setting or config."""


def train_main(arguments: list[str] | None = None) -> int:
    """`train.py` and `lcprobe-train`."""
    return run_command(lambda: _train(sys.argv[1:] if arguments is None else arguments))


def evaluate_main(arguments: list[str] | None = None) -> int:
    """`evaluate.py` and `lcprobe-evaluate`."""
    return run_command(lambda: _evaluate(sys.argv[1:] if arguments is None else arguments))


def data_main(arguments: list[str] | None = None) -> int:
    """`lcprobe-data`."""
    return run_command(lambda: _data(sys.argv[1:] if arguments is None else arguments))


def _train(arguments: list[str]) -> int:
    if _helped(arguments, "TRAIN"):
        return 0
    files, folders, overrides, plan_only = _split(arguments)
    if folders:
        raise ConfigError("command line", str(folders[0]), "a .yaml file (a run's own copy is <run>/config.yaml)")
    if not files:
        raise ConfigError("command line", "no config", "at least one .yaml file, such as configs/quickstart.yaml")
    from lcprobe.config import load, parse

    mapping = load(files, overrides)
    parse(mapping)  # every mistake that needs no torch is found before torch is imported
    from lcprobe.studies.training.train_study import print_plan, train_study

    if plan_only:
        print_plan(mapping)
        return 0
    train_study(mapping)
    return 0


def _evaluate(arguments: list[str]) -> int:
    if _helped(arguments, "EVALUATE"):
        return 0
    cheats, arguments = "--cheat" in arguments, [a for a in arguments if a != "--cheat"]
    arguments, asked = _lists(arguments)
    files, folders, overrides, plan_only = _split(arguments, (*OPTIONS, "--cheat", *LISTS))
    several = [*(["--plan"] if plan_only else []), *(["--cheat"] if cheats else []), *asked]
    if len(several) > 1 and several != list(asked):
        raise ConfigError("command line", " with ".join(several), "one of them")
    frozen = [Path(name) for name in asked.get("--frozen", [])]
    for path in frozen:
        if not path.is_file():
            raise ConfigError("--frozen", str(path), "existing files of JSON lines")
    if not files and not folders:
        raise ConfigError(
            "command line", "nothing to probe", "a study, run or checkpoint folder, or a config that names a study"
        )
    from lcprobe.config import load, parse

    mapping = load(files, overrides)
    if not folders:  # with folders, these settings go on top of theirs and are checked together
        parse(mapping)
    if asked:
        from lcprobe.studies.evaluation.external import evaluate_bridges

        evaluate_bridges(folders, mapping, asked.get("--harness", []), frozen)
        return 0
    from lcprobe.studies.evaluation.evaluate_study import cheat_on, evaluate_study

    if cheats:
        cheat_on(folders, mapping)
        return 0
    evaluate_study(folders, mapping, plan_only)
    return 0


def _data(arguments: list[str]) -> int:
    if _helped(arguments, "DATA"):
        return 0
    verbs: dict[str, Callable[[list[str]], int]] = {"prepare": _prepare, "tokenizer": _tokenizer}
    if not arguments or arguments[0] not in verbs:
        given = arguments[0] if arguments else "nothing"
        raise ConfigError("command line", given, " | ".join(verbs), nearest(given, verbs))
    return verbs[arguments[0]](arguments[1:])


def _prepare(arguments: list[str]) -> int:
    config = _config(arguments)
    from lcprobe.data.prepare import prepare
    from lcprobe.studies.runtime import set_up_logging

    set_up_logging()
    made = prepare(config.data, verify=True)
    m = made.manifest
    print(
        f"{made.folder}: {m['documents']} documents ({m['probe_documents']} held out), {m['train_tokens']:,} training tokens"
    )
    print(f"corpus {m['corpus_digest'][:16]}, tokenizer {m['tokenizer_digest'][:16]}, vocabulary {m['vocab_size']}")
    return 0


def _tokenizer(arguments: list[str]) -> int:
    if len(arguments) < 2 or not arguments[1].isdigit() or int(arguments[1]) < 300:
        raise ConfigError(
            "command line", " ".join(arguments[:2]) or "nothing", "OUT.json and a vocabulary of at least 300"
        )
    out, config = Path(arguments[0]), _config(arguments[2:])
    from lcprobe.data.corpus import documents
    from lcprobe.data.make_tokenizer import train_tokenizer
    from lcprobe.files import write_atomic

    write_atomic(out, train_tokenizer(documents(config.data.corpus, config.data.text_field), int(arguments[1])))
    print(f"{out}: use it with data.tokenizer={out}")
    return 0


def _config(arguments: list[str]) -> Any:
    files, folders, overrides, _ = _split(arguments)
    if folders:
        raise ConfigError("command line", str(folders[0]), "a .yaml file or key=value")
    from lcprobe.config import load, parse

    return parse(load(files, overrides))


def _helped(arguments: list[str], name: str) -> bool:
    if "--version" in arguments:
        print(f"lcprobe {__version__}")
        return True
    asked = next((a for a in arguments if a in ("--help", "-h")), None)
    if asked is None:
        return False
    from lcprobe.cli import help

    after = arguments[arguments.index(asked) + 1 :]
    intro = getattr(help, name)
    print(intro if name == "DATA" else help.text(intro, after[0] if after else None))
    return True


def _lists(arguments: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Arguments without the options of LISTS, and what was given to these. Raises ConfigError for one without a name."""
    rest: list[str] = []
    asked: dict[str, list[str]] = {}
    into = rest
    for argument in arguments:
        if argument in LISTS:
            into = asked.setdefault(argument, [])
            continue
        if argument.startswith("-") or "=" in argument or argument.endswith((".yaml", ".yml")):
            into = rest
        if into is rest or argument not in into:
            into.append(argument)
    for option, names in asked.items():
        if not names:
            given = {"--harness": "names of lm-eval tasks", "--frozen": "files of JSON lines"}
            raise ConfigError(option, "nothing", given[option])
    return rest, asked


def _split(arguments: list[str], options: tuple[str, ...] = OPTIONS) -> tuple[list[str], list[Path], list[str], bool]:
    """(config files, folders, key=value, whether --plan). Raises ConfigError for an argument that is none of these."""
    files, folders, overrides, plan = [], [], [], False
    for argument in arguments:
        if argument == "--plan":
            plan = True
        elif argument.startswith("-"):
            raise ConfigError("command line", argument, " | ".join(options), nearest(argument, options))
        elif argument.endswith((".yaml", ".yml")) and "=" not in argument:
            files.append(argument)
        elif "=" in argument:
            overrides.append(argument)
        elif Path(argument).is_dir():
            folders.append(Path(argument))
        else:
            allowed = "an existing .yaml file or folder, key=value, or an option (--help lists them)"
            raise ConfigError("command line", argument, allowed)
    return files, folders, overrides, plan
