"""The commands: arguments in, exit code out. Heavy imports wait until the arguments are known to be good."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from lcprobe.cli.arguments import LIST_OPTIONS, Arguments, belongs_to_config, no_folders, read_arguments
from lcprobe.errors import ConfigError, Said, run_command, unknown_name
from lcprobe.version import VERSION

T = TypeVar("T")


def main(arguments: list[str] | None = None) -> int:
    """`lcprobe` and `python -m lcprobe`: a command's name, then its arguments."""
    return run_command(lambda: _any_command(sys.argv[1:] if arguments is None else arguments))


def train_main(arguments: list[str] | None = None) -> int:
    """`lcprobe train`, `train.py` and `lcprobe-train`."""
    return main(["train", *(sys.argv[1:] if arguments is None else arguments)])


def evaluate_main(arguments: list[str] | None = None) -> int:
    """`lcprobe evaluate`, `evaluate.py` and `lcprobe-evaluate`."""
    return main(["evaluate", *(sys.argv[1:] if arguments is None else arguments)])


def data_main(arguments: list[str] | None = None) -> int:
    """`lcprobe data` and `lcprobe-data`."""
    return main(["data", *(sys.argv[1:] if arguments is None else arguments)])


def _any_command(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("--help", "-h"):
        from lcprobe.cli.help import OVERVIEW
        from lcprobe.cli.pages import page

        _print_help(page(words[1]) if len(words) > 1 else OVERVIEW)
        return 0
    if name == "--version":
        return _print_version()
    if name not in COMMANDS:
        raise unknown_name("command line", name, COMMANDS)
    arguments = words[1:]
    if "--version" in arguments:
        return _print_version()
    option = next((word for word in arguments if word in ("--help", "-h")), None)
    if option is None:
        return COMMANDS[name](arguments)
    from lcprobe.cli import help

    after = arguments[arguments.index(option) + 1 :]
    _print_help(help.help_of(name, after[0] if after else None))
    return 0


def _print_help(text: str) -> None:
    """Print help, on a narrow terminal within its width."""
    from lcprobe.cli.reflow import fitted
    from lcprobe.words import width_of

    width = width_of()
    print(text if width is None else fitted(text, width))


def _print_version() -> int:
    print(f"lcprobe {VERSION}")
    return 0


def _train(words: list[str]) -> int:
    arguments = read_arguments(words, ("--plan", "--full"))
    no_folders(arguments, "a .yaml file (a run's own copy is <run>/config.yaml)")
    if not arguments.files:
        raise ConfigError("command line", "no config", "at least one .yaml file, such as configs/quickstart.yaml")
    from lcprobe.config import load, parse

    plan = _planned(arguments)
    mapping = load(arguments.files, arguments.overrides)
    parse(mapping)  # every mistake that needs no torch is reported before torch is imported
    if not any(mapping.get(section) for section in ("model", "grid", "match")):
        given = Said(f"no model to train in {' '.join(arguments.files)}")
        allowed = (
            "a config with model (such as configs/quickstart.yaml); one without goes on top of it, or to evaluate.py"
        )
        raise ConfigError("model", given, allowed)
    from lcprobe.studies.training.train_study import print_plan, train_study

    if plan:
        print_plan(mapping, plan == "full")
        return 0
    train_study(mapping)
    return 0


def _planned(arguments: Arguments) -> Literal["short", "full"] | None:
    """How much of a plan is asked for; None: none. Raises ConfigError for --full without --plan."""
    if "--full" in arguments.flags and "--plan" not in arguments.flags:
        raise ConfigError("command line", "--full", "--plan --full")
    return "full" if "--full" in arguments.flags else "short" if "--plan" in arguments.flags else None


def _evaluate(words: list[str]) -> int:
    arguments = read_arguments(words, ("--plan", "--full", "--cheat"), tuple(LIST_OPTIONS))
    plan = _planned(arguments)
    flags, lists = [flag for flag in ("--plan", "--cheat") if flag in arguments.flags], arguments.lists
    if len(flags) > 1 or (flags and lists):
        raise ConfigError("command line", " with ".join([*flags, *lists]), "one of them")
    frozen = [Path(name) for name in lists.get("--frozen", [])]
    for path in frozen:
        if not os.path.isfile(path):  # unlike Path's, False for a name that no file can have
            raise ConfigError("--frozen", str(path), "existing files of JSON lines")
    if not arguments.files and not arguments.folders and not arguments.models:
        raise ConfigError(
            "command line", "nothing to probe", "a folder, hf:ORG/NAME, or a config that names a study or models"
        )
    from lcprobe.config import load, parse, read_settings
    from lcprobe.probing.config import PublishedModel

    settings = read_settings(arguments.files, arguments.overrides)
    given: list[Path | PublishedModel] = [*arguments.folders, *map(PublishedModel, arguments.models)]
    # with folders, the settings go on top of theirs and are checked together
    named = None if given else parse(load(arguments.files, arguments.overrides))
    if lists:
        from lcprobe.studies.evaluation.external import evaluate_external

        evaluate_external(given, settings, named, lists.get("--harness", []), frozen)
        return 0
    from lcprobe.studies.evaluation.evaluate_study import check_leakage_of, evaluate_study

    if "--cheat" in flags:
        check_leakage_of(given, settings, named)
        return 0
    evaluate_study(given, settings, named, plan)
    return 0


def _explain(words: list[str]) -> int:
    arguments = read_arguments(words)
    words = [*arguments.files, *map(str, arguments.folders), *arguments.models]
    if arguments.files or len(words) != 1:
        allowed = "one folder of a run or checkpoint, or hf:ORG/NAME, and key=value"
        raise ConfigError("command line", " ".join(words) or "no model", allowed)
    from lcprobe.config import read_settings
    from lcprobe.probing.config import PublishedModel
    from lcprobe.probing.explain.config import ExplainConfig
    from lcprobe.schema import build

    own = [word for word in arguments.overrides if not belongs_to_config(word)]
    wanted = build(ExplainConfig, dict(read_settings([], own).layers))  # no torch until it is known to be good
    settings = read_settings([], [word for word in arguments.overrides if word not in own])
    from lcprobe.studies.evaluation.explaining.explain import explain_number

    model = PublishedModel(arguments.models[0]) if arguments.models else arguments.folders[0]
    explain_number(model, wanted, settings)
    return 0


def _data(words: list[str]) -> int:
    name = words[0] if words else "nothing"
    if name not in DATA_COMMANDS:
        raise unknown_name("command line", name, DATA_COMMANDS)
    return DATA_COMMANDS[name](words[1:])


def _prepare(words: list[str]) -> int:
    from lcprobe.config import load, parse

    arguments = read_arguments(words)
    no_folders(arguments, "a .yaml file or key=value")
    config = parse(load(arguments.files, arguments.overrides))
    from lcprobe.data.corpus import check_corpus
    from lcprobe.data.prepare import prepare
    from lcprobe.studies.planning.text_fits import check_text_fits
    from lcprobe.studies.runtime import set_up_logging

    set_up_logging()
    check_corpus(config.data.corpus, config.data.text_field)
    check_text_fits(config, training=True)
    corpus = prepare(config.data, verify=True)
    facts = corpus.manifest
    documents = f"{facts['documents']} documents ({facts['probe_documents']} held out)"
    print(f"{corpus.folder}: {documents}, {facts['train_tokens']:,} training tokens")
    digests = f"corpus {facts['corpus_digest'][:16]}, tokenizer {facts['tokenizer_digest'][:16]}"
    print(f"{digests}, vocabulary {facts['vocab_size']}")
    return 0


def _tokenizer(words: list[str]) -> int:
    if len(words) < 2 or not words[1].isdigit() or int(words[1]) < 300:
        given = " ".join(words[:2]) or "nothing"
        raise ConfigError("command line", given, "OUT.json and a vocabulary of at least 300")
    from lcprobe.config import load, parse

    out, arguments = Path(words[0]), read_arguments(words[2:])
    no_folders(arguments, "a .yaml file or key=value")
    config = parse(load(arguments.files, arguments.overrides))
    from lcprobe.data.corpus import check_corpus, texts
    from lcprobe.data.make_tokenizer import train_tokenizer
    from lcprobe.files import check_path, write_atomic

    check_path("command line", words[0], written=True)
    check_corpus(config.data.corpus, config.data.text_field)
    write_atomic(out, train_tokenizer(texts(config.data.corpus, config.data.text_field), int(words[1])))
    print(f"{out}: use it with data.tokenizer={out}")
    return 0


def _kernels(words: list[str]) -> int:
    if words and (words[0] != "--backend" or len(words) != 2):
        raise ConfigError("command line", " ".join(words), "nothing, or --backend NAME")
    from lcprobe_kernels.__main__ import main as report_kernels

    return report_kernels(words)


def _config(words: list[str]) -> int:
    arguments = read_arguments(words)
    no_folders(arguments, "a .yaml file or key=value")
    from lcprobe.config import load, parse, to_yaml
    from lcprobe.schema import plain, resolve

    mapping = load(arguments.files, arguments.overrides)
    config = parse(mapping)
    resolve(config)
    printed = plain(config)
    if config.study.tuned_by is not None and "lr" not in mapping.get("train", {}):
        del printed["train"]["lr"]  # the sweep sets it: a rate that is written out beside study.tuned_by is refused
    print(to_yaml(printed), end="")
    return 0


def _export(words: list[str]) -> int:
    arguments = read_arguments(words)
    no_folders(arguments, "a .yaml file with tasks and grids (a run's own is <run>/config.yaml)")
    if not arguments.files:
        raise ConfigError("command line", "no config", "at least one .yaml file with tasks and grids")
    from lcprobe.config import load, parse

    config = parse(load(arguments.files, arguments.overrides))
    from lcprobe.studies.evaluation.exporting.export import export_grid

    export_grid(config)
    return 0


def _score(words: list[str]) -> int:
    names, rest = _take_option(words, "--model")
    settings = [word for word in rest if word.startswith(("study.name=", "study.folder="))]
    paths = [Path(word) for word in rest if word not in settings]
    folders = [path for path in paths if os.path.isdir(path)]
    files = [path for path in paths if path not in folders]
    if len(folders) != 1 or not files or len(names) != 1 or any(word.startswith("-") for word in rest):
        allowed = "EXPORT_FOLDER FILE ... --model NAME [study.name=NAME] [study.folder=FOLDER]"
        raise ConfigError("command line", " ".join(words) or "nothing", allowed)
    for path in files:
        if not os.path.isfile(path):
            raise ConfigError("command line", str(path), "existing files with outputs")
    from lcprobe.studies.evaluation.exporting.score import score_outputs

    study = {word.partition("=")[0].removeprefix("study."): word.partition("=")[2] for word in settings}
    score_outputs(folders[0], files, names[0], study)
    return 0


def _sweep(words: list[str]) -> int:
    count, rest = _take_number(words, "--trials", 1)
    seed, rest = _take_number(rest, "--seed", 0)
    arguments = read_arguments(rest, ("--plan",))
    no_folders(arguments, "a .yaml file")
    if len(arguments.files) != 1:
        allowed = "FILE.yaml [key=value ...] [--trials N] [--seed N] [--plan]"
        raise ConfigError("command line", " ".join(words) or "nothing", allowed)
    from lcprobe.studies.sweeps.sweep_file import read_sweep

    sweep = read_sweep(Path(arguments.files[0]))
    trials = sweep.trials(count, seed or 0)
    from lcprobe.studies.sweeps.run_sweep import print_trials, run_sweep

    (print_trials if "--plan" in arguments.flags else run_sweep)(sweep, trials, arguments.overrides)
    return 0


def _sync(words: list[str]) -> int:
    folders = [Path(word) for word in words]
    if not words or not all(os.path.isdir(word) for word in words):
        raise ConfigError("command line", " ".join(words) or "nothing", "folders of studies, such as runs/quickstart")
    from lcprobe.studies.runtime import set_up_logging
    from lcprobe.studies.tracking.sync import sync

    set_up_logging()
    sync(folders)
    return 0


def _completion(words: list[str]) -> int:
    from lcprobe.cli.completion.scripts import SCRIPTS
    from lcprobe.cli.completion.words import completion_words

    name = words[0] if len(words) == 1 else " ".join(words) or "nothing"
    if name not in SCRIPTS:
        raise unknown_name("command line", name, SCRIPTS)
    print(SCRIPTS[name](completion_words(SCRIPTS, DATA_COMMANDS)), end="")
    return 0


def _figure(words: list[str]) -> int:
    from lcprobe.analysis.report.exports.choices import FigureChoices

    folder, name, choices = _report_part("figure", words, FigureChoices)
    from lcprobe.studies.evaluation.reporting.again import figure_again

    figure_again(folder, name, choices)
    return 0


def _table(words: list[str]) -> int:
    from lcprobe.analysis.report.exports.choices import TableChoices

    folder, name, choices = _report_part("table", words, TableChoices)
    from lcprobe.studies.evaluation.reporting.again import table_again

    table_again(folder, name, choices)
    return 0


def _report_part(command: str, words: list[str], settings: type[T]) -> tuple[Path, str | None, T]:
    """The folder of a report, what is asked for by name, and the settings. Raises ConfigError for anything else."""
    from lcprobe.config import read_settings
    from lcprobe.schema import build

    names = [word for word in words if "=" not in word or os.path.isdir(word)]
    if not 1 <= len(names) <= 2 or any(name.startswith("-") for name in names):
        raise ConfigError("command line", " ".join(words) or "nothing", f"FOLDER [{command.upper()}] [key=value ...]")
    chosen = read_settings([], [word for word in words if word not in names])
    return Path(names[0]), names[1] if len(names) > 1 else None, build(settings, chosen.on({}))


def _take_option(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """What follows each mention of an option, and the other words."""
    values, rest, following = [], [], False
    for word in words:
        if following:
            values.append(word)
        elif word != option:
            rest.append(word)
        following = word == option and not following
    return values, rest


def _take_number(words: list[str], option: str, least: int) -> tuple[int | None, list[str]]:
    """The number that follows an option (None: the option is not there), and the other words. Raises ConfigError for
    anything but one whole number."""
    values, rest = _take_option(words, option)
    if option not in words:
        return None, rest
    given = " ".join(values)
    if not re.fullmatch(r"[0-9]{1,9}", given) or int(given) < least:
        raise ConfigError(option, given or "nothing", f"one whole number >= {least}")
    return int(given), rest


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "explain": _explain,
    "data": _data,
    "export": _export,
    "score": _score,
    "sweep": _sweep,
    "sync": _sync,
    "figure": _figure,
    "table": _table,
    "kernels": _kernels,
    "config": _config,
    "completion": _completion,
}
DATA_COMMANDS: dict[str, Callable[[list[str]], int]] = {"prepare": _prepare, "tokenizer": _tokenizer}
