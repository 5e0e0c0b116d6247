"""Names that a report gives to models, in place of those of runs: `study.names: {s0-mamba2: Mamba-2, yarn: YaRN}`.

They are laid on what a report is made from, the facts and the records in memory; files and ids keep names of runs.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from lcprobe.analysis.inputs import RunFacts, StudyFacts, Value
from lcprobe.errors import ConfigError, listed, nearest_name

AS_TRAINED = "none"
KEY = "study.names"


class _Parts(NamedTuple):
    """`rope+yarn@chat`: the model as trained, `+yarn`, `@chat`; group and architecture without the template."""

    target: str
    method: str
    tag: str
    group: str
    architecture: str


def allowed_names(study: StudyFacts) -> list[str]:
    """What can be given a name: models, as trained and with a method; groups of seeds; architectures; methods."""
    found: dict[str, None] = {}
    for run in study.runs:
        parts = _parts(run)
        found |= dict.fromkeys([parts.target, run.name, parts.group, parts.architecture])
        found |= {} if run.extension == AS_TRAINED else {run.extension: None}
    return list(found)


def check_names(study: StudyFacts, names: Mapping[str, str], known: Iterable[str]) -> None:
    """Raises ConfigError for a name of nothing in the study, and for two models with one name. known: keys that must
    be there; others may be of models that are not."""
    allowed = allowed_names(study)
    for name in known:
        if name in names and name not in allowed:
            raise ConfigError(f"{KEY}.{name}", names[name], listed(allowed, " | "), nearest_name(name, allowed))
    for display in (_of_runs(study, names), _of_groups(study, names), _of_architectures(study, names)):
        shown = list(display.values())
        twice = next((name for name in shown if shown.count(name) > 1), None)
        if twice is not None:
            both = listed((raw for raw, name in display.items() if name == twice), " and ")
            raise ConfigError(KEY, f"{twice} for {both}", "a name of its own for each")


def names_of(study: StudyFacts, names: Mapping[str, str]) -> dict[str, str]:
    """The name that a report has for each model, by the model's own."""
    return _of_runs(study, names)


class Inputs(NamedTuple):
    """What a report is made from: facts, records of SCHEMA, and measurements on plain text."""

    study: StudyFacts
    records: pa.Table
    context: pa.Table | None = None


def named(given: Inputs, names: Mapping[str, str]) -> Inputs:
    """The same under the names of a report."""
    if not names:
        return given
    context = None if given.context is None else named_table(given.context, given.study, names)
    return Inputs(named_study(given.study, names), named_table(given.records, given.study, names), context)


def named_study(study: StudyFacts, names: Mapping[str, str]) -> StudyFacts:
    """A study under the names of its report."""
    runs = _of_runs(study, names)
    groups, architectures = _of_groups(study, names), _of_architectures(study, names)
    every = {**architectures, **groups, **runs}
    texts = _Texts({raw: name for raw, name in every.items() if raw != name})

    def renamed(run: RunFacts) -> RunFacts:
        parts = _parts(run)
        base = f"{_target(study, names, run, parts)}{parts.tag}" if run.base else ""
        facts = replace(run, name=runs[run.name], group=groups[run.group], base=base)
        facts = replace(facts, architecture=architectures[run.architecture] if run.architecture else "")
        facts = replace(facts, extension=_method(run.extension, names))
        return replace(facts, started_from=every.get(run.started_from, run.started_from))

    def cells(row: Mapping[str, Value]) -> dict[str, Value]:
        return {key: every.get(v, v) if isinstance(v, str) else v for key, v in row.items()}

    return replace(
        study,
        runs=[renamed(run) for run in study.runs],
        matching=[cells(row) for row in study.matching],
        sweep=[cells(row) for row in study.sweep],
        notes=[texts.of(note) for note in study.notes],
        unread=[texts.of(note) for note in study.unread],
    )


def named_table(table: pa.Table, study: StudyFacts, names: Mapping[str, str]) -> pa.Table:
    """Records, or measurements on plain text, under the names of their report. study: under the names of runs."""
    runs = _of_runs(study, names)
    table = _renamed(table, "model", lambda name: runs.get(name, name))
    if "extension" not in table.column_names:
        return table
    return _renamed(table, "extension", lambda name: _method(name, names))


def _renamed(table: pa.Table, column: str, name_of: Callable[[str], str]) -> pa.Table:
    """A column of texts under other names; each name is looked up once, however many rows there are."""
    levels = table[column].combine_chunks().dictionary_encode()
    shown = pa.array([name_of(name) for name in levels.dictionary.to_pylist()], pa.string())
    renamed = pa.DictionaryArray.from_arrays(levels.indices, shown).cast(pa.string())
    return table.set_column(table.column_names.index(column), table.schema.field(column), renamed)


class _Texts:
    """Texts in which names of models stand as words."""

    def __init__(self, names: Mapping[str, str]):
        self.names = names
        longest = sorted(names, key=len, reverse=True)
        self.pattern = re.compile(rf"(?<![\w.+@/-])({'|'.join(map(re.escape, longest))})(?![\w+@/-]|\.\w)")

    def of(self, text: str) -> str:
        return self.pattern.sub(lambda match: self.names[match.group(1)], text) if self.names else text


def _method(label: str, names: Mapping[str, str]) -> str:
    return label if label == AS_TRAINED else names.get(label, label)


def _parts(run: RunFacts) -> _Parts:
    tag = f"@{run.template}"
    name = run.name.removesuffix(tag)
    tag = tag if name != run.name else ""
    method = "" if run.extension == AS_TRAINED else f"+{run.extension}"
    target = name.removesuffix(method) if method else name
    return _Parts(target, method, tag, run.group.removesuffix(tag), (run.architecture or run.group).removesuffix(tag))


def _of_runs(study: StudyFacts, names: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for run in study.runs:
        parts = _parts(run)
        method = "" if not parts.method else f"+{_method(run.extension, names)}"
        found[run.name] = names.get(run.name, f"{_target(study, names, run, parts)}{method}{parts.tag}")
    return found


def _target(study: StudyFacts, names: Mapping[str, str], run: RunFacts, parts: _Parts) -> str:
    """The name of a model as trained: its own, or that of its group or architecture with what tells it apart."""
    if parts.target in names:
        alone = [r for r in study.runs if _parts(r).group == parts.target and r.extension == run.extension]
        if parts.target != parts.group or len({_parts(r).target for r in alone}) < 2:
            return names[parts.target]
    if parts.group in names or parts.architecture in names:
        group = _group(study, names, parts)
        several = {_parts(r).target for r in study.runs if _parts(r).group == parts.group}
        return f"{group}, seed {run.seed}" if len(several) > 1 else group
    return parts.target


def _group(study: StudyFacts, names: Mapping[str, str], parts: _Parts) -> str:
    if parts.group in names:
        return names[parts.group]
    own = {_parts(r).target for r in study.runs if _parts(r).group == parts.group}
    if len(own) == 1 and parts.target in names:
        return names[parts.target]
    if parts.architecture in names:
        others = {_parts(r).group for r in study.runs if _parts(r).architecture == parts.architecture}
        length = next(r.context_length for r in study.runs if _parts(r).group == parts.group)
        return f"{names[parts.architecture]}, {length:,} tokens" if len(others) > 1 else names[parts.architecture]
    return parts.group


def _of_groups(study: StudyFacts, names: Mapping[str, str]) -> dict[str, str]:
    return {run.group: f"{_group(study, names, _parts(run))}{_parts(run).tag}" for run in study.runs}


def _of_architectures(study: StudyFacts, names: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for run in study.runs:
        parts = _parts(run)
        if run.architecture:
            same = {r.group for r in study.runs if r.architecture == run.architecture}
            group = _group(study, names, parts) if len(same) == 1 else parts.architecture
            found[run.architecture] = f"{names.get(parts.architecture, group)}{parts.tag}"
    return found
