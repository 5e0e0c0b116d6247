"""What a grid's prompts have in common, measured on its first samples: shared prefixes are read once."""

from collections.abc import Sequence

from lcprobe.errors import EpisodeError
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.prefix_sharing import plan_prefill
from lcprobe.probing.scoring import Item
from lcprobe.probing.sharing.work import group_units
from lcprobe.probing.units import Plan, Unit
from lcprobe.studies.planning.probe_costs import Prompts, rows_of

LONGEST_BUILT = 8192
"""Tokens up to which samples are built; longer ones share as those of their task at the longest length below."""


def prompts_of(plan: Plan, tasks: TaskSet, probe: ProbeConfig) -> list[Prompts]:
    """The prompts of every group of units that are scored together, from the first sample of each unit."""
    measured: dict[tuple[object, ...], Prompts] = {}
    found = []
    groups = sorted(group_units(plan.units), key=lambda group: plan.units[group[0]].length)
    for numbers in groups:
        units = [plan.units[i] for i in numbers]
        first = units[0]
        kind = (first.task, first.formats.haystack, len(units))
        if kind not in measured or first.length <= LONGEST_BUILT:
            measured[kind] = _measured(units, tasks, probe)
        like = measured[kind]
        queries = like.n / max(1, sum(unit.strata for unit in units))
        n = round(queries * sum(unit.strata * unit.n for unit in units))
        found.append(Prompts(first.length, n, like.new, like.answers, like.candidates, like.greedy))
    return found


def _measured(units: Sequence[Unit], tasks: TaskSet, probe: ProbeConfig) -> Prompts:
    """The prompts of the first sample of units, in each stratum."""
    items = []
    for unit in units:
        for factors in unit.factors()[:: unit.n]:
            try:
                episode = tasks.by_name[unit.task].episode(factors)
            except EpisodeError:  # another sample may be made
                continue
            items += [Item(episode, query) for query in episode.queries]
    task, length = units[0].task, units[0].length
    greedy = 0 if probe.continuation is None else tasks.continuation_tokens(task)
    if not items:
        return Prompts(length, sum(unit.strata for unit in units), greedy=greedy)
    prompts = [item.prompt for item in items]
    new = plan_prefill(prompts, rows_of(length, probe.batch_tokens)).tokens / sum(map(len, prompts))
    answers = max(sum(map(len, item.query.candidates)) for item in items)
    candidates = max(len(item.query.candidates) for item in items)
    return Prompts(length, len(items), new, answers, candidates, greedy)
