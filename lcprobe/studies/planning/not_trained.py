"""What a study probes and does not train: kinds of tasks, and formats. A model that was never asked in a format fails
there for that reason; a study of zero-shot formats may want it, and every other one should know before it trains."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from lcprobe.config import Config
from lcprobe.schema import plain
from lcprobe.tasks.episode import Formats
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.presets import TaskChoice

FACTORS = tuple(field.name for field in fields(Formats))
Levels = dict[str, dict[str, None]]
"""Levels by factor, in the order in which they come."""


def not_trained_notes(configs: Sequence[Config]) -> list[str]:
    """A line for each kind of task that the runs of a study are probed in and not trained in, or not in all of its
    formats. None for runs that train on text alone: these are asked without examples by design."""
    notes = [note for config in configs for note in _notes(config)]
    return list(dict.fromkeys(notes))


def _notes(config: Config) -> list[str]:
    used = dict.fromkeys(name for stage in config.data.mixture for name in stage.episodes)
    trained: dict[str, Levels] = {}
    for recipe in (config.data.recipes[name] for name in used):
        levels = {factor: getattr(recipe, factor) for factor in FACTORS}
        _add(trained.setdefault(recipe.task.choice.name, {}), recipe.task, levels)
    probed: dict[str, Levels] = {}
    for grid in config.probe.grids:
        for name in (grid.tasks or config.probe.tasks) if "none" in grid.controls else ():
            task = config.probe.tasks[name]
            _add(probed.setdefault(task.choice.name, {}), task, {factor: getattr(grid, factor) for factor in FACTORS})
    if not trained:
        return []
    new = [kind for kind in probed if kind not in trained]
    notes = [f"probed and not trained: {', '.join(new)}"] if new else []
    for kind in (kind for kind in probed if kind in trained):
        missing = {
            factor: [level for level in asked if level not in trained[kind].get(factor, {})]
            for factor, asked in probed[kind].items()
        }
        texts = [f"{factor} {', '.join(levels)}" for factor, levels in missing.items() if levels]
        if texts:
            notes.append(f"{kind}: probed and not trained in {'; '.join(texts)}")
    return notes


def _add(levels_of: Levels, task: TaskChoice, levels: Mapping[str, Iterable[str]]) -> None:
    """The levels of a task's factors, and its template where it has one."""
    axes = task.choice.cls.axes
    for factor, given in levels.items():
        possible = axes.levels(factor)
        own = possible if len(possible) == 1 else [task.formats[factor]] if factor in task.formats else given
        levels_of.setdefault(factor, {}).update(dict.fromkeys(level for level in own if level != NOTHING))
    template = plain(task.choice.config).get("template")
    if template is not None:
        levels_of.setdefault("template", {})[str(template)] = None
