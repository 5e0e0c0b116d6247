"""Runs of a study with several training lengths, by architecture and group: figures of it have a panel per
architecture, a colour per training length, and the runs of a group that differ in their seed in one line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lcprobe.analysis.findings.cells import PanelKey, Unavailable
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.slice_tests import pooled
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.charts.grammar import DASH_DOTTED, DASHED, SOLID, SYMBOLS, Style, styles_of
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.models.extend.config import AS_TRAINED
from lcprobe.tasks.episode import Formats

SHADES = ("#b5c92c", "#6fbf4b", "#2fa67c", "#23898e", "#31688e", "#4f5fae", "#8a3fa3")
"""Of viridis, without the yellow that is hard to see on white and the violet that is hard to see in the dark."""
LINES = {"trained at": SOLID, "continued at": DASHED, "schedule up to": DASH_DOTTED}
SEEDS = "Thick: mean over training seeds; thin: each seed."


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed alone, each seed once. name: their group, with its extension at evaluation, if
    any; repeats: runs that are left out, of a seed that is there already."""

    name: str
    context_length: int
    runs: tuple[RunFacts, ...]
    repeats: int = 0

    @property
    def label(self) -> str:
        """How the group was trained, for a legend."""
        return f"{self._kind} {self.context_length:,}"

    def style(self, styles: Mapping[int, Style]) -> Style:
        """That of its training length, with a line of its own unless it was trained at one length from the start."""
        return replace(styles[self.context_length], dash=LINES[self._kind])

    @property
    def _kind(self) -> str:
        first = self.runs[0]
        return "continued at" if first.started_from else "schedule up to" if first.length_schedule else "trained at"


def seeds_text(results: Results) -> str:
    """How seeds are drawn, with a space after it; empty where every model has one."""
    return f"{SEEDS} " if _has_several_seeds(results) else ""


def intervals_text(results: Results) -> str:
    """What intervals of groups are over."""
    rest = ", of these seeds: how far seeds differ is seen in each of them" if _has_several_seeds(results) else ""
    return f"95 % intervals over samples{rest}."


def _has_several_seeds(results: Results) -> bool:
    return any(len(group.runs) > 1 for group in seed_groups(results))


def has_several_lengths(results: Results) -> bool:
    """Whether some architecture was trained at more than one length."""
    return any(len({group.context_length for group in groups}) > 1 for groups in architectures(results).values())


def architectures(results: Results) -> dict[str, list[SeedGroup]]:
    """Groups by architecture, in the order of the study; the groups of one by their training length."""
    found: dict[str, dict[str, list[RunFacts]]] = {}
    for run in results.study.runs:
        groups = found.setdefault(f"{run.architecture or run.group}{_extension(run)}", {})
        groups.setdefault(_name(run), []).append(run)
    return {
        architecture: sorted(
            (_group(name, runs) for name, runs in groups.items()),
            key=lambda group: group.context_length,
        )
        for architecture, groups in found.items()
    }


def _name(run: RunFacts) -> str:
    return f"{run.group}{_extension(run)}"


def _extension(run: RunFacts) -> str:
    return "" if run.extension == AS_TRAINED else f" {run.extension}"


def _group(name: str, runs: Sequence[RunFacts]) -> SeedGroup:
    """A seed that is there twice counts once, by its first run, as in `findings.contrasts`."""
    by_seed: dict[int, RunFacts] = {}
    for run in runs:
        by_seed.setdefault(run.seed, run)
    return SeedGroup(name, runs[0].context_length, tuple(by_seed.values()), len(runs) - len(by_seed))


def length_styles(results: Results) -> dict[int, Style]:
    """A style per training length, the same in every figure: the longer, the darker."""
    lengths = training_lengths(results)
    last = len(SHADES) - 1
    places = [last if len(lengths) == 1 else round(i * last / (len(lengths) - 1)) for i in range(len(lengths))]
    return {
        length: Style(SHADES[place], SYMBOLS[i % len(SYMBOLS)], SOLID)
        for i, (length, place) in enumerate(zip(lengths, places, strict=True))
    }


def seed_groups(results: Results) -> list[SeedGroup]:
    """Every group of the study: one model, whatever its seeds."""
    return [group for groups in architectures(results).values() for group in groups]


def names_of_models(results: Results) -> dict[str, list[str]]:
    """What a run, a group of seeds and an architecture stand for: names of groups, as in figures."""
    found: dict[str, list[str]] = {}
    for architecture, groups in architectures(results).items():
        for group in groups:
            of = {run.group for run in group.runs}
            repeated = [run.name for run in results.study.runs if _name(run) == group.name]
            for name in dict.fromkeys((architecture, group.name, *of, *repeated)):
                found.setdefault(name, []).append(group.name)
    return found


def group_styles(results: Results) -> dict[str, Style]:
    """A style per group, by its name, the same in every figure of a study of one training length."""
    return styles_of([group.name for group in seed_groups(results)])


def training_lengths(results: Results) -> list[int]:
    """Training lengths of the study in tokens, ascending."""
    return sorted({run.context_length for run in results.study.runs})


def group_mean(
    results: Results, group: SeedGroup, task: str, format: Formats, length: int, depths: Sequence[float] = ()
) -> Proportion | Unavailable:
    """Exact match of a group at a length, over all or some depths: its seeds together, samples as clusters."""
    whole = pooled([results.data.slice(PanelKey(run.name, task, format), length) for run in group.runs])
    if isinstance(whole, Unavailable):
        return whole
    return (whole.at_depths(depths) if depths else whole).estimate
