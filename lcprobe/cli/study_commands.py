"""Commands about studies as a whole: sweep, consolidate, work, status, sync."""

import os
from pathlib import Path

from lcprobe.cli.arguments import no_folders, read_arguments, take_number, words_after
from lcprobe.errors import ConfigError


def sweep(words: list[str]) -> int:
    """`lcprobe sweep`: the trials of a sweep in W&B's format."""
    count, rest = take_number(words, "--trials", 1)
    seed, rest = take_number(rest, "--seed", 0)
    arguments = read_arguments(rest, ("--plan",))
    no_folders(arguments, "a .yaml file")
    if len(arguments.files) != 1:
        allowed = "FILE.yaml [key=value ...] [--trials N] [--seed N] [--plan]"
        raise ConfigError("command line", " ".join(words) or "nothing", allowed)
    from lcprobe.studies.sweeps.sweep_file import read_sweep

    sweep = read_sweep(Path(arguments.files[0]))
    trials = sweep.trials(count, seed or 0)
    from lcprobe.studies.sweeps.run_sweep import launcher_of, print_trials, run_sweep

    launcher = launcher_of(sweep, trials, arguments.overrides)
    if "--plan" in arguments.flags:
        print_trials(sweep, trials, arguments.overrides)
        return 0
    if launcher is None:
        run_sweep(sweep, trials, arguments.overrides)
        return 0
    from lcprobe.studies.launchers.launch import trainer_of_trials

    run_sweep(sweep, trials, arguments.overrides, trainer_of_trials(launcher))
    return 0


def consolidate(words: list[str]) -> int:
    """`lcprobe consolidate`."""
    if not words or not all(os.path.isdir(word) for word in words):
        raise ConfigError("command line", " ".join(words) or "nothing", "folders of runs or of checkpoints")
    from lcprobe.studies.training.consolidate_run import consolidate_folders

    print("\n".join(consolidate_folders([Path(word) for word in words])))
    return 0


def work(words: list[str]) -> int:
    """`lcprobe work`: one of several processes that do a study."""
    names, rest = ([], words) if "--units" not in words else words_after(words, "--units")
    study = _study_folder(rest, "STUDY [--units train|probe|NAME ...]")
    from lcprobe.studies.launchers.work.worker import work as take_what_is_free

    return take_what_is_free(study, names)


def status(words: list[str]) -> int:
    """`lcprobe status`."""
    flags = [word for word in words if word in ("--watch", "--json")]
    study = _study_folder([word for word in words if word not in flags], "STUDY [--watch] [--json]")
    from lcprobe.studies.launchers.watching.screen import show_status

    show_status(study, "--watch" in flags, "--json" in flags)
    return 0


def sync(words: list[str]) -> int:
    """`lcprobe sync`."""
    folders = [Path(word) for word in words]
    if not words or not all(os.path.isdir(word) for word in words):
        raise ConfigError("command line", " ".join(words) or "nothing", "folders of studies, such as runs/quickstart")
    from lcprobe.studies.runtime import set_up_logging
    from lcprobe.studies.tracking.sync import sync as send

    set_up_logging()
    send(folders)
    return 0


def _study_folder(words: list[str], allowed: str) -> Path:
    """The folder of a study. Raises ConfigError for anything else."""
    if len(words) != 1 or not os.path.isdir(words[0]):
        raise ConfigError("command line", " ".join(words) or "nothing", f"{allowed}, with an existing folder")
    return Path(words[0])
