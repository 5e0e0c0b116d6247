"""The commands: arguments in, exit code out. Heavy imports wait until the arguments are known to be good."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from lcprobe.cli.arguments import (
    LIST_OPTIONS,
    Arguments,
    belongs_to_config,
    no_folders,
    read_arguments,
    take_option,
)
from lcprobe.cli.study_commands import consolidate, status, sweep, sync, work
from lcprobe.errors import ConfigError, Said, run_command, unknown_name
from lcprobe.version import VERSION
from lcprobe.words import counted

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
    from lcprobe.training.processes import processes

    plan = _planned(arguments)
    mapping = load(arguments.files, arguments.overrides)
    config = parse(mapping)  # every mistake that needs no torch is reported before torch is imported
    launcher = config.launcher
    if plan:
        from lcprobe.tasks.text.hub_tokenizers import check_planned

        check_planned(config.data.tokenizer, config.model.vocab_size)
    if not any(mapping.get(section) for section in ("model", "grid", "match")):
        given = Said(f"no model to train in {' '.join(arguments.files)}")
        allowed = (
            "a config with model (such as configs/quickstart.yaml); one without goes on top of it, or to evaluate.py"
        )
        raise ConfigError("model", given, allowed)
    if plan and processes().rank:  # the first of several prints it
        return 0
    from lcprobe.studies.training.train_study import print_plan, train_study

    if plan:
        print_plan(mapping, plan == "full")
        return 0
    mapping = {key: value for key, value in mapping.items() if key != "launcher"}
    if launcher is not None:
        launcher.resolve()
        from lcprobe.studies.launchers.launch import train_by_workers

        train_by_workers(mapping, launcher)
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
    from lcprobe.training.processes import processes

    settings = read_settings(arguments.files, arguments.overrides)
    given: list[Path | PublishedModel] = [*arguments.folders, *map(PublishedModel, arguments.models)]
    # with folders, the settings go on top of theirs and are checked together
    whole = {} if given else load(arguments.files, arguments.overrides)
    named = None if given else parse(whole)
    launched = [key for key in sorted(settings.keys()) if key.partition(".")[0] == "launcher"]
    if (lists or "--cheat" in flags) and launched:
        raise ConfigError("launcher", " ".join([*flags, *lists]), "without launcher: this process does it")
    if lists:
        from lcprobe.studies.evaluation.external import evaluate_external

        evaluate_external(given, settings, named, lists.get("--harness", []), frozen)
        return 0
    if plan and processes().rank:  # the first of several prints it
        return 0
    from lcprobe.studies.evaluation.evaluate_study import check_leakage_of, evaluate_study

    if "--cheat" in flags:
        check_leakage_of(given, settings, named)
        return 0
    from lcprobe.studies.launchers.launch import prober_of

    evaluate_study(given, settings, named, plan, prober_of(given, settings, named))
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
    from lcprobe.studies.preparing import preparing
    from lcprobe.studies.progress_display import ProgressDisplay
    from lcprobe.studies.runtime import set_up_logging

    set_up_logging()
    check_corpus(config.data.corpus, config.data.text_field)
    check_text_fits(config, training=True)
    with ProgressDisplay() as display:
        observe = preparing(display, " ".join(map(str, config.data.corpus)))
        corpus = prepare(config.data, verify=True, observe=observe)
    facts = corpus.manifest
    near = facts.get("near_duplicates", 0)  # corpora of earlier versions have none
    left_out = f", {counted(near, 'near-duplicate')} of these left out" if near else ""
    documents = f"{facts['documents']} documents ({facts['probe_documents']} held out{left_out})"
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
    from lcprobe.files import check_new_file, write_atomic

    check_new_file("command line", words[0])
    check_corpus(config.data.corpus, config.data.text_field)
    write_atomic(out, train_tokenizer(texts(config.data), int(words[1])))
    print(f"{out}: use it with data.tokenizer={out}")
    return 0


def _kernels(words: list[str]) -> int:
    from lcprobe.cli.kernels import kernels

    return kernels(words)


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
    names, rest = take_option(words, "--model")
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


def _records(words: list[str]) -> int:
    from lcprobe.cli.records import records_command

    return records_command(words)


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


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "explain": _explain,
    "data": _data,
    "export": _export,
    "score": _score,
    "sweep": sweep,
    "consolidate": consolidate,
    "work": work,
    "status": status,
    "sync": sync,
    "records": _records,
    "figure": _figure,
    "table": _table,
    "kernels": _kernels,
    "config": _config,
    "completion": _completion,
}
DATA_COMMANDS: dict[str, Callable[[list[str]], int]] = {"prepare": _prepare, "tokenizer": _tokenizer}
