"""A part of a study's results: some models, tasks, formats and lengths, as computed over all of it.

Nothing is tested again: intervals, verdicts and p-values are those of the whole report.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.exports.choices import Selection
from lcprobe.errors import unknown_name
from lcprobe.tasks.episode import Formats

BETWEEN = " − "
"""Between the two models of a contrast's subject."""


def check_selection(results: Results, selection: Selection) -> None:
    """Raises ConfigError for what the results do not have."""
    data = results.data
    lengths = sorted({length for planned in data.planned.values() for length in planned})
    has: dict[str, Sequence[object]] = {
        "models": list(dict.fromkeys(name for run in results.study.runs for name in _names(run))),
        "task": [task.name for task in data.tasks],
        "format": list(dict.fromkeys(str(format) for _, format, _ in data.planned)),
        "lengths": lengths,
    }
    given = (selection.models, selection.tasks, selection.formats, selection.lengths)
    for (key, known), names in zip(has.items(), given, strict=True):
        for name in names:
            if name not in known:
                raise unknown_name(key, str(name), list(map(str, known)))


def selected(results: Results, selection: Selection) -> Results:
    """The results of a selection. Raises ConfigError as `check_selection`."""
    check_selection(results, selection)
    study, data = results.study, results.data
    chosen = {
        run.name: run for name in selection.models for run in study.runs if name in _names(run)
    } or {run.name: run for run in study.runs}  # fmt: skip
    gone = {name for run in study.runs if run.name not in chosen for name in _names(run)}
    gone -= {name for run in chosen.values() for name in _names(run)}
    architectures = {run.architecture or run.group for run in chosen.values()}
    tasks, formats, lengths = (_kept(x) for x in (selection.tasks, selection.formats, selection.lengths))

    def panel(where: PanelKey) -> bool:
        return where.model in chosen and tasks(where.task) and formats(str(where.format))

    def pair(task: str, format: str | Formats) -> bool:
        return tasks(task) and (formats(str(format)) or not str(format))

    order = list(selection.tasks) or [task.name for task in study.tasks]
    kept_tasks = sorted((t for t in study.tasks if t.name in order), key=lambda t: order.index(t.name))
    study = replace(
        study,
        runs=list(chosen.values()),
        tasks=kept_tasks,
        expected_cells=[
            row
            for row in study.expected_cells
            if tasks(row["task"])
            and formats(f"{row['haystack']}/{row['key_format']}/{row['value_format']}")
            and lengths(int(row["length"]))
        ],
    )
    planned = {
        key: {n: depths for n, depths in of.items() if lengths(n)}
        for key, of in data.planned.items()
        if pair(key[0], key[1]) and any(map(lengths, of))
    }
    data = replace(data, study=study, planned=planned, panels={k: p for k, p in data.panels.items() if panel(k)})
    return replace(
        results,
        data=data,
        cells=[cell for cell in results.cells if panel(cell.where) and lengths(cell.length)],
        contrasts=[
            c
            for c in results.contrasts
            if pair(c.task, c.format)
            and all(map(lengths, c.lengths or [c.length]))
            and not gone & {*c.subject.split(BETWEEN)}
        ],
        extrapolations=[
            replace(e, by_length=tuple(row for row in e.by_length if lengths(row[0])))
            for e in results.extrapolations
            if panel(e.where)
        ],
        reaches=[r for r in results.reaches if panel(r.where)],
        half_lives=[h for h in results.half_lives if panel(h.where)],
        gates=[g for g in results.gates if panel(g.where)],
        text=[t for t in results.text if t.model in chosen],
        length_fits=[f for f in results.length_fits if f.architecture in architectures and pair(f.task, f.format)],
        collapses=[c for c in results.collapses if c.architecture in architectures and pair(c.task, c.format)],
        depth_effects=[
            e for e in results.depth_effects if e.architecture in architectures and pair(e.task, e.format)
        ],
        published=[c for c in results.published if c.model in chosen],
    )


def _names(run: RunFacts) -> list[str]:
    """What selects a run: its name, and those of its group and its architecture."""
    return list(dict.fromkeys(name for name in (run.name, run.group, run.architecture) if name))


def _kept(names: Iterable[object]) -> Callable[[object], bool]:
    wanted = {*names}
    return lambda name: not wanted or name in wanted
