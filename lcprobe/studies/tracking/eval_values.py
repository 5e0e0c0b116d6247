"""What an evaluation says about one model, under names that all models share, so that W&B's table of runs sorts by
them and one chart has a line for each run.

    eval/multikey@1024                     accuracy over all depths at 1,024 tokens; with /low, /high (95 %) and /n
    eval/multikey/effective_length         in tokens; with /at_least where the true one may be longer
    eval/multikey/chance                   what guessing scores
    eval/multikey/wrong_key@128            a control
    eval/multikey/noise-words-hex@128      another format than the first of the task

The rows of the curves have `eval/length` as their x-axis, and the accuracies of what was probed at several lengths:
`eval/multikey/accuracy`. Incomplete cells have no value.
"""

from collections.abc import Iterator, Mapping

from lcprobe.analysis.findings.cells import PanelKey, Slice
from lcprobe.analysis.findings.results import Results

LENGTH = "eval/length"
Values = dict[str, float | int]
OF_ALL_LENGTHS = ("/at_least", "/effective_length", "/chance")
"""Ends of the names of values that are about all lengths, in the order in which they are taken off."""


def eval_summary(results: Results, model: str) -> Values:
    """The final values of a model."""
    values: Values = {}
    for where, name, length, part in _slices(results, model):
        estimate, at = part.estimate, f"{name}@{length}"
        values |= {at: estimate.value, f"{at}/low": estimate.low, f"{at}/high": estimate.high, f"{at}/n": estimate.n}
        if where.control == "none" and part.chance < 1:
            values.setdefault(f"{name}/chance", part.chance)
    for found in results.extrapolations:
        if found.where.model == model and found.effective is not None:
            name = _name(results, found.where)
            values[f"{name}/effective_length"] = found.effective
            values[f"{name}/effective_length/at_least"] = int(found.at_least)
    return values


def eval_curves(results: Results, model: str) -> list[Values]:
    """Rows over length; a panel with one length is no curve."""
    curves: dict[str, dict[int, float]] = {}
    for _, name, length, part in _slices(results, model):
        curves.setdefault(f"{name}/accuracy", {})[length] = part.value
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    lengths = sorted({length for points in curves.values() for length in points})
    at = {length: {name: points[length] for name, points in curves.items() if length in points} for length in lengths}
    return [{LENGTH: length, **row} for length, row in at.items()]


def place_of(name: str) -> tuple[str, int | None]:
    """What a final value is about: task, format and control as one name, and the length; None: all lengths."""
    panel, at, rest = name.rpartition("@")
    length = rest.partition("/")[0]
    if at and length.isdecimal():
        return panel, int(length)
    for suffix in OF_ALL_LENGTHS:
        name = name.removesuffix(suffix)
    return name, None


def unsaid(row: Mapping[str, float | int], summary: Mapping[str, object]) -> Mapping[str, float | int]:
    """What a row has that was not logged before: of a curve's row not the accuracies that a summary of before has,
    since they were logged with it; empty where nothing is left."""
    accuracies = {name for name in row if LENGTH in row and name.endswith("/accuracy")}
    said = {n for n in accuracies if summary.get(f"{n.removesuffix('/accuracy')}@{row[LENGTH]}") == row[n]}
    if accuracies and said == accuracies:
        return {}
    return {name: value for name, value in row.items() if name not in said}


def _slices(results: Results, model: str) -> Iterator[tuple[PanelKey, str, int, Slice]]:
    """The complete slices of a model, with the names of their panels, and their lengths."""
    for task, format, control in results.data.planned:
        where = PanelKey(model, task, format, control)
        for length in results.data.lengths(task, format, control):
            part = results.data.slice(where, length)
            if isinstance(part, Slice):
                yield where, _name(results, where), length, part


def _name(results: Results, where: PanelKey) -> str:
    """Task, format unless it is the task's first, control."""
    first = next(format for task, format, _ in results.data.planned if task == where.task)
    format = [] if where.format == first else [str(where.format).replace("/", "-")]
    control = [] if where.control == "none" else [where.control]
    return "/".join(["eval", where.task, *format, *control])
