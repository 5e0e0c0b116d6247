"""Probe a study and write its report: implements `evaluate.py`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lcprobe.analysis.display_names import check_names, names_of
from lcprobe.analysis.report.write import REPORT, write_report
from lcprobe.analysis.stats.power import detectable_differences
from lcprobe.config import Config, laid_on, load, parse, whole
from lcprobe.data.config import DataConfig
from lcprobe.errors import ConfigError, Said, listed
from lcprobe.files import check_name, remove_leftovers
from lcprobe.locks import waited_claim
from lcprobe.merging import Settings
from lcprobe.probing.config import PublishedModel, ServerConfig
from lcprobe.probing.units import Plan
from lcprobe.schema import plain
from lcprobe.studies.console import note_lines, say
from lcprobe.studies.evaluation.costs.read_tokens import prompts_of
from lcprobe.studies.evaluation.costs.tables import print_costs
from lcprobe.studies.evaluation.costs.untrained import known_shape, plan_untrained, planned_runs
from lcprobe.studies.evaluation.dividing.follower import follow_first
from lcprobe.studies.evaluation.dividing.processes import sharing
from lcprobe.studies.evaluation.groups import group_names
from lcprobe.studies.evaluation.leakage import check_leakage
from lcprobe.studies.evaluation.published import is_published
from lcprobe.studies.evaluation.readers import reader_key
from lcprobe.studies.evaluation.report_inputs import ReportInputs, is_report_of, report_time, save_inputs
from lcprobe.studies.evaluation.reporting.episodes import shown_episodes
from lcprobe.studies.evaluation.reporting.places import Place, place_of, report_times
from lcprobe.studies.evaluation.reporting.progress import ReportProgress
from lcprobe.studies.evaluation.reporting.question import Question, question_of
from lcprobe.studies.evaluation.reporting.screen import say_report
from lcprobe.studies.evaluation.reporting.tracking import probe_run, track_models, track_report
from lcprobe.studies.evaluation.session import Probed, Session, open_session, probe_session
from lcprobe.studies.evaluation.study_facts import facts_of
from lcprobe.studies.evaluation.targets import (
    Named,
    ProbeTarget,
    find_targets,
    is_study,
    runs_not_in_study,
    runs_of_study,
)
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.probe_costs import Prompts
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.tracking import Trackers
from lcprobe.studies.tracking.chosen import require_trackers
from lcprobe.words import counted

Planned = Literal["short", "full"] | None
"""How much of a plan is printed; None: it is carried out."""
SETTABLE = ("probe", "pe", "compat", "track", "study", "kernels", "launcher")
"""Sections of the config that can be set for trained models: the others describe how they were trained."""
STUDY_FILE = "study.yaml"
PLACES = ("corpus", "folder")
"""Of `data`: where its text and what was prepared of it are now."""


Prober = Callable[[Session], bool]
"""Has others probe a session; whether the report is to be written now, of what they did and what they left."""


def evaluate_study(
    given: list[Named],
    settings: Settings,
    named: Config | None,
    plan: Planned = None,
    prober: Prober = lambda session: True,
) -> None:
    """Probe what is given (without anything, the study that the config `named` names) with its own settings and
    `settings` on top; write the report. plan: print what it takes instead; prober: who probes before this process
    does."""
    missing = planned_targets(given, settings, named) if plan else []
    if missing:
        _print_untrained(missing, _with_settings(missing[0].config, settings), plan == "full")
        return
    targets, config, out = resolve_targets(given, settings, named)
    probe = replace(config.probe, context_parallel=1) if plan else config.probe
    with sharing(probe, config.kernels, out) as rank:
        if rank:
            follow_first(probe.hang_minutes)
        else:
            _evaluate(open_session(targets, config, out), config, out, plan, prober)


def _evaluate(session: Session, config: Config, out: Path, plan: Planned, prober: Prober) -> None:
    """Probe what is open, or print its plan."""
    print_grid(session, full=plan == "full")
    if plan:
        read = {key: prompts_of(own.plan, own.tasks, config.probe) for key, own in session.readers.items()}
        work = {v.name: (v, _readable(read[reader_key(v)], v)) for v in session.variants}
        print_costs(work, config, plan == "full")
        return
    _check_names(session, config)
    before = report_times(out)
    if not prober(session):
        return
    with ProgressDisplay() as display:
        probed = probe_session(session, display)
    session.store.discard_all()
    say(*(f"left out: {note}" for note in probed.left_out.values()), indent=2)
    with waited_claim(out, "report", f"{out}", wait="writes the report"):
        _report(session.without(probed.left_out), config, probed, before)


def planned_targets(given: list[Named], settings: Settings, named: Config | None) -> list[ProbeTarget]:
    """The targets of a plan where some of them are not here: runs that are not trained, and published models on the
    hub whose shape is known, which are not downloaded for a plan. Empty: nothing is missing."""
    set_up_logging()
    keep_memory()
    models = [*(one for one in given if isinstance(one, PublishedModel)), *(_models(settings))]
    folders = [one for one in given if not isinstance(one, PublishedModel)]
    shapes, runs = {one.address: known_shape(one) for one in models}, []
    if named is not None:
        folder, keys = Path(named.study.folder) / named.study.name, settings.keys()
        trained = is_study(folder) and bool(runs_of_study(folder)[0])
        folders = [folder] if trained else []
        describes = any(key.partition(".")[0] in ("model", "grid") for key in keys)
        if not trained and (describes or not models):
            runs = planned_runs(whole(settings))
    if not runs and not any(shapes.values()):
        return []
    others = [one for one in models if shapes[one.address] is None]
    here = find_targets([*folders, *others], _server(settings)) if folders or others else []
    return [*here, *runs, *(one for one in shapes.values() if one is not None)]


def _print_untrained(targets: list[ProbeTarget], config: Config, full: bool) -> None:
    """Print cells, tokens and costs of targets of which not all are here."""
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError("probe.grids", "nothing to probe", "tasks and grids in the config (configs/probe has some)")
    variants, plan, work, notes = plan_untrained(targets, config)
    print_cells(plan, _what_is_probed(targets, len(variants)))
    say(*note_lines({"cells and models": notes}, "--plan --full", full), indent=2)
    print_costs(work, config, full)


def _readable(prompts: list[Prompts], variant: Variant) -> list[Prompts]:
    return [one for one in prompts if variant.max_length is None or one.length <= variant.max_length]


def _report(session: Session, config: Config, probed: Probed, before: dict[Path, float]) -> None:
    """Write the report, unless another process has done it. before: times of the reports when probing began."""
    home = session.out
    place, question = _place(session, config, probed)
    out = place.folder
    study = replace(facts_of(session, probed.biases, probed.engine_notes), name=place.title, question=place.asks)
    inputs = ReportInputs(
        study,
        probed.record_units,
        probed.text_units,
        plain(question),
        Path(os.path.relpath(home, out)).as_posix(),
        dict(config.study.names),
    )
    if place.note:
        say(place.note, indent=2)
    if report_time(out) != before.get(out) and is_report_of(out, inputs):
        say(f"report: {out / REPORT} (written by another process)")
        return
    save_inputs(out, inputs)
    readers = {v.name: session.reader_of(v).tasks for v in session.variants}
    episodes = shown_episodes(study, probed.records, readers.__getitem__)
    with probe_run(session, config, out) as tracker:
        with ProgressDisplay() as display:
            told = Trackers([tracker, ReportProgress(display)])
            report = write_report(study, probed.records, out, told, probed.context, episodes, config.study.names)
        track_report(tracker, report, config.study.name, home)
    track_models(
        session, config, report.results, names_of(study, config.study.names), question.digest, own=out == home
    )
    remove_leftovers(home)
    say_report(report)


def _check_names(session: Session, config: Config) -> None:
    """Raises ConfigError for a display name of nothing that is probed, where it is not of the study's own config, and
    for one that two models have."""
    names, own = config.study.names, session.targets[0].config.study.names
    if names:
        check_names(facts_of(session, {}, {}), names, [name for name in names if names[name] != own.get(name)])


def _place(session: Session, config: Config, probed: Probed) -> tuple[Place, Question]:
    """Where the report of a session belongs, and its question."""
    home, name = session.out, config.study.name
    question = question_of(session.targets, config, home)
    own = name if home.name == name else session.targets[0].config.study.name
    unchanged = question_of(session.targets, session.targets[0].config, home)
    is_own = question == unchanged and question.models == ["."]
    named = name if name != own else None
    return place_of(home, own, named, question, probed.record_units, is_own), question


def resolve_targets(
    given: list[Named], settings: Settings, named: Config | None
) -> tuple[list[ProbeTarget], Config, Path]:
    """The targets, the first one's config with `settings` on top, and the folder for results. named: config of the
    study that is probed where nothing else is given: its runs, and its published models.

    Raises ConfigError for a study that does not exist, and what `find_targets` raises.
    """
    set_up_logging()
    keep_memory()
    if named is not None:
        folder = Path(named.study.folder) / named.study.name
        given = [*([folder] if is_study(folder) else []), *named.study.models]
        if not given:
            allowed = f"a study under {named.study.folder} (train.py creates it), or study.models"
            raise ConfigError("study.name", named.study.name, allowed)
        if is_study(folder):
            say(*_trained_otherwise(named, folder))
        targets = find_targets(given, named.probe.server)
        if not is_study(folder):  # published models alone: the config has the text and the place for results
            targets = [replace(t, config=replace(t.config, data=_data(named, t))) for t in targets]
    else:
        _refuse_training(settings)
        given = [*given, *_models(settings)]
        folder = None
        targets = find_targets(given, _server(settings))
    targets = [replace(t, config=_with_places(t.config, settings)) for t in targets]
    say(*runs_not_in_study(given))
    config = _with_settings(targets[0].config, settings)
    require_trackers(config.track)
    use_kernels(config.kernels)
    out = folder or _out_folder(given, config, settings)
    return targets, config, out


def _trained_otherwise(named: Config, folder: Path) -> list[str]:
    """A line where a config says that a study is trained in another way than it was: what is trained stays so."""
    trained, given = plain(parse(load([str(folder / STUDY_FILE)], []))), plain(named)
    differ = []
    for section in (name for name in given if name not in SETTABLE):
        one, other = ({"": v} if not isinstance(v, dict) else v for v in (given[section], trained[section]))
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        places = PLACES if section == "data" else ()
        differ += [f"{section}.{key}".rstrip(".") for key in keys if key not in places]
    if not differ:
        return []
    return [
        f"{folder} was trained with other settings ({listed(differ, ', ')}): its runs are probed as they were trained"
    ]


def _data(named: Config, target: ProbeTarget) -> DataConfig:
    """The text of a study, as a published model reads it."""
    own = target.config.data
    return replace(named.data, tokenizer=own.tokenizer, bos=own.bos)


def _server(settings: Settings) -> ServerConfig:
    """`probe.server` of settings."""
    return laid_on(Config(), settings.of(["probe.server"])).probe.server


def _models(settings: Settings) -> list[PublishedModel]:
    """The published models that settings name on top of what else is given."""
    keys = settings.keys()
    if "study.models" not in keys:
        return []
    return parse(whole(settings.of(["study.models"]))).study.models


def check_leakage_of(given: list[Named], settings: Settings, named: Config | None) -> None:
    """The leakage check on the tasks of the config `named`, or of what is given with `settings` on top; it needs
    no trained model."""
    set_up_logging()
    if named is not None:
        check_leakage(named, Path(named.study.folder) / named.study.name / "cheating")
        return
    _refuse_training(settings)
    target = find_targets(given, _server(settings))[0]
    config = _with_settings(_with_places(target.config, settings), settings)
    trained_on = target.source.progress.corpus_digest
    check_leakage(config, _out_folder(given, config, settings) / "cheating", trained_on)


def print_grid(session: Session, full: bool = False) -> None:
    """Print cells, tokens, and the smallest differences that the grid can detect. full: every note."""
    n_models = len(session.variants)
    print_cells(session.plan, _what_is_probed(session.targets, n_models))
    if n_models > len(session.targets):
        for variant in session.variants:
            method = "as trained" if variant.method is None else variant.label
            method += "" if variant.method is None else f", factor {variant.method.factor or 'auto'}"
            told = f"{method}; template {variant.template.name}; engine {variant.target.source.engine}"
            say(f"variant: {variant.name} ({told})", indent=2)
    notes = {
        "records that count no longer and are probed again": session.outdated,
        "what is left out": [note for note in session.notes if note not in session.outdated],
        "lengths that models cannot read": session.unread,
    }
    say(*note_lines(notes, "--plan --full", full), indent=2)


def _what_is_probed(targets: list[ProbeTarget], n: int) -> tuple[str, str]:
    """`3 models` and `model`; `9 runs of 3 models` and `run` where training seeds make more of them, `6 variants of 3
    models` where methods or templates do."""
    models = len({names.group for names in group_names(targets)})
    if models == n:
        return counted(n, "model"), "model"
    one = "run" if n == len(targets) else "variant"
    return f"{counted(n, one)} of {counted(models, 'model')}", one


def print_cells(plan: Plan, probed: tuple[str, str]) -> None:
    """Print cells, tokens and tasks of a plan, and the smallest differences that it can detect. probed: what
    is, in words, and one of it."""
    cells = [row for unit in plan.units for row in unit.rows()]
    cost = f"{counted(sum(row['n'] for row in cells), 'episode')} and {plan.tokens:,} tokens per {probed[1]}"
    say(f"{probed[0]} x {counted(len(cells), 'cell')}, {cost}")
    tasks = ", ".join(dict.fromkeys(str(row["task"]) for row in cells))
    say(f"tasks: {tasks}", indent=2)
    main = [row for row in cells if row["control"] == "none"] or cells
    n = min(row["n"] for row in main)
    say("smallest detectable differences, with 80 % power:", indent=2)
    for name, value in detectable_differences(n, max(row["strata"] for row in main)).items():
        say(f"{value:6.1%}  {name}", indent=2)


def _refuse_training(settings: Settings) -> None:
    """Raises ConfigError for keys that describe how the given folders were trained. (Alone, a study's config may have
    them.)"""
    places = {f"data.{place}" for place in PLACES}
    for key in sorted(settings.keys() - places):
        section = key.partition(".")[0]
        if section not in SETTABLE:
            settable = " | ".join([*SETTABLE, *sorted(places)])
            raise ConfigError(section, Said("a setting of training"), f"{settable} (the rest is as it was trained)")


def _with_settings(base: Config, settings: Settings) -> Config:
    """A run's own config, with the settings for trained models on top."""
    return laid_on(base, settings.of(SETTABLE))


def _with_places(base: Config, settings: Settings) -> Config:
    """A run's own config, with the places of its data as in the settings; digests tell whether it is the same
    data."""
    return laid_on(base, settings.of([f"data.{place}" for place in PLACES]))


def _out_folder(given: list[Named], config: Config, settings: Settings) -> Path:
    """The folder for results: of a single folder itself (of a checkpoint, its run), where study.folder does not say
    another (the runs may be read-only); of a published model one with its name; of several study.name beside the
    study of the first one. What study.name names of a single folder is its report, see `reporting.places`."""
    keys = settings.keys()
    if len(given) > 1 and "study.name" not in keys:
        raise ConfigError(
            "study.name", None, "a name for the comparison of several models, such as study.name=comparison"
        )
    folder = given[0]
    if len(given) > 1:
        studies = Path(config.study.folder)
        if "study.folder" not in keys and isinstance(folder, Path) and not is_published(folder):
            studies = _studies_of(folder)
        out = studies / config.study.name
        if any(not isinstance(one, PublishedModel) and out.resolve() == one.resolve() for one in given):
            raise ConfigError("study.name", config.study.name, "a name that none of the given folders has")
        return out
    if "study.name" not in keys and (isinstance(folder, PublishedModel) or is_published(folder)):
        return Path(config.study.folder) / check_name("study.name", config.study.run or config.study.name)
    if isinstance(folder, Path) and not is_published(folder) and "study.folder" not in keys:
        return folder.parent.parent if folder.parent.name == "checkpoints" else folder
    return Path(config.study.folder) / config.study.name


def _studies_of(folder: Path) -> Path:
    """The folder with the study that a study's, a run's or a checkpoint's folder belongs to."""
    run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
    return run.parent.parent if not is_study(run) and is_study(run.parent) else run.parent
