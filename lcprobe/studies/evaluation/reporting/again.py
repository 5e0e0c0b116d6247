"""A figure or a table of a report again, with other choices and without probing: implements `lcprobe figure` and
`lcprobe table`."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lcprobe.analysis.display_names import Inputs, check_names, named
from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.charts.render import render_spec, save
from lcprobe.analysis.report.exports.choices import (
    FIGURE_SUFFIXES,
    TABLE_SUFFIXES,
    Choices,
    FigureChoices,
    TableChoices,
)
from lcprobe.analysis.report.exports.files import table_csv
from lcprobe.analysis.report.exports.latex import latex_table
from lcprobe.analysis.report.exports.remade import figure_list, remade
from lcprobe.analysis.report.exports.remade_tables import remade_table, table_list
from lcprobe.analysis.report.figures import CHARTS
from lcprobe.errors import ConfigError, DataError, SetAsideError, listed
from lcprobe.files import write_atomic
from lcprobe.studies.console import say
from lcprobe.studies.evaluation.report_inputs import load_inputs
from lcprobe.words.counts import counted

C = TypeVar("C", bound=Choices)
SHOWN = 6
"""Figures that a message names."""


def results_of(folder: Path, choices: C) -> tuple[Results, C]:
    """Everything that the report in a folder computes, from its facts and records, under its names and those of the
    choices; and the choices with these names, where they have those of runs. Raises DataError where there is no
    report, ConfigError for names of nothing."""
    inputs = load_inputs(folder)
    try:
        records, context = inputs.records(folder), inputs.context(folder)
    except SetAsideError as error:  # this command again does not do it
        raise DataError(str(error)) from None
    every = {**inputs.names, **choices.names}
    check_names(inputs.study, every, choices.names)
    shown = named(Inputs(inputs.study, records, context), every)
    names: dict[str, str] = {}
    for run, given in zip(inputs.study.runs, shown.study.runs, strict=True):
        for raw, name in ((run.name, given.name), (run.group, given.group), (run.architecture, given.architecture)):
            names.setdefault(raw, name)
    return analyse(*shown), replace(choices, models=[names.get(name, name) for name in choices.models])


def figure_again(folder: Path, name: str | None, choices: FigureChoices) -> list[Path]:
    """Write one figure of a report, or all of a chart into a folder; without a name, list them. Returns the files.

    One file of a chart that has a figure per format gets the first format, as on the page.
    """
    written_before = _names_of_files(folder) if name is None and choices == FigureChoices() else {}
    if written_before:  # analysing and drawing everything for a list would take seconds
        for chart, names in written_before.items():
            say(chart)
            say(*names, indent=2)
        return []
    results, choices = results_of(folder, choices)
    if name is None:
        for chart, pictures in figure_list(results, choices).items():
            say(chart)
            say(*(f"{picture.name}  {picture.title}" for picture in pictures), indent=2)
        return []
    made = list(remade(results, name, choices))
    suffix = choices.suffix(FIGURE_SUFFIXES)
    to_one_file = choices.out is not None and not Path(choices.out).is_dir()
    if len(made) > 1 and to_one_file and not choices.format:
        formats = len({picture.format for picture, _ in made})
        made = [(picture, spec) for picture, spec in made if _is_of_first_format(picture, results)]
        if formats > 1 and len(made) == 1:
            say(f"{made[0][0].format}: the first of {formats} formats (format= takes another)")
    if len(made) > 1 and to_one_file:
        shown = listed((picture.name for picture, _ in made[:SHOWN]), " | ")
        given = f"{name}, of which there are {len(made)}"
        raise ConfigError("figure", given, f"out= an existing folder, task=, format=, or {shown}")
    written = []
    for picture, spec in made:
        path = choices.path(picture.name, suffix)
        save(render_spec(spec), path)
        say(f"{path}: {picture.title}")
        written.append(path)
    return written


def _names_of_files(folder: Path) -> dict[str, list[str]]:
    """The figures beside a report's page, by their chart."""
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "figures").glob("*.svg")):
        charts = [chart for chart in CHARTS if path.stem == chart or path.stem.startswith(f"{chart}_")]
        if charts:
            found.setdefault(max(charts, key=len), []).append(path.stem)
    return {chart: found[chart] for chart in CHARTS if chart in found}


def _is_of_first_format(picture: Picture, results: Results) -> bool:
    formats = results.data.formats(picture.task) if picture.format else []
    return not formats or picture.format == str(formats[0])


def table_again(folder: Path, name: str | None, choices: TableChoices) -> Path | None:
    """Write one table of a report, or list them without a name. Returns the file."""
    results, choices = results_of(folder, choices)
    if name is None:
        say(*(f"{key}: {counted(rows, 'row')}" for key, rows in table_list(results, choices).items()))
        return None
    suffix = choices.suffix(TABLE_SUFFIXES)
    table = remade_table(results, name, choices, typeset=suffix == ".tex")
    path = choices.path(name.rpartition("/")[2], suffix)
    label = name.replace("_", "-").replace("/", "-")
    write_atomic(path, latex_table(table, label) if suffix == ".tex" else table_csv(table))
    say(f"{path}: {counted(len(table.rows), 'row')}")
    return path
