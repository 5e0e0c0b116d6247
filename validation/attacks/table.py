"""Attacks that need no retrieval, on every task, and on every format and haystack of the shipped grids in the strata
that they have there: the policies of the leakage check and attackers that have learned from other samples, against
the stated chance; then the same on RULER.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from lcprobe.analysis.leakage import LeakageCell, PolicyScores, leakage_summary, leakage_table
from lcprobe.errors import EpisodeError
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.cheating import POLICIES
from lcprobe.probing.policies.observation import TaskStatistics, collect_statistics, observe
from lcprobe.probing.runner import score_unit
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.probing.units import Unit
from lcprobe.probing.unmade import NotMade, made_all
from lcprobe.schema import build
from lcprobe.seeds import Stream
from lcprobe.studies.evaluation.leakage import by_sample, pivot, unit_scores
from lcprobe.tasks.episode import Formats
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.attacks.learned import Attacker, Question, learned, named, question_of
from validation.attacks.peers import peer_rows
from validation.variants import materials_of, shipped_grids, variants

TITLE = "attacks without retrieval: + above its own 95 % range, ! exceeds chance (Holm over the table), * the task"
OPTIONS = ("n", "learn", "strata", "lengths", "tasks", "peers")
LENGTHS, PEER_LENGTHS = "512,4096", "1024,4096"
GRIDS_TITLE = "attacks without retrieval on every cell of the shipped grids: " + TITLE.partition(": ")[2]
GRIDS_OPTIONS = ("n", "learn", "configs", "length")
CONFIGS, GRID_LENGTH, STRATA = "quickstart,every,needles,ruler", "512", 5
FIRST, FIRST_LEARNED = 1 << 19, 1 << 18
"""First samples of units that are attacked, and of those that attackers learn from."""


class Attacked(NamedTuple):
    """Units of one set of tasks, all of their samples to be attacked."""

    tasks: TaskSet
    units: list[Unit]


class LearnedScorer:
    """A scorer that names what a learned attacker thinks most likely, or nothing where nothing can be named."""

    def __init__(
        self, name: str, attacker: Attacker, questions: dict[tuple[str, int], Question | None], tasks: TaskSet
    ):
        self.name, self.attacker, self.tokenizer = name, attacker, tasks.tokenizer
        self._questions = questions

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what the attacker names."""
        return [scored_text(item, self._answer(item), self.tokenizer) for item in items]

    def _answer(self, item: Item) -> str:
        key = item.episode.digest, item.query.start
        question = self._questions[key]
        return "" if question is None else named(self.attacker, question, Stream(self.name, *key))[0]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per task and length, one column per attack. options: n (100) samples in every stratum, learn (250)
    samples in every stratum to learn from, strata (5), lengths, tasks; peers: lengths of RULER's, or none."""
    n, learn, strata = (
        int(options.get(name, default)) for name, default in (("n", 100), ("learn", 250), ("strata", STRATA))
    )
    lengths = [int(x) for x in options.get("lengths", LENGTHS).split(",")]
    chosen = options["tasks"].split(",") if "tasks" in options else []
    table = attack([_by_task(chosen, lengths, strata, n)], n, learn, strata)
    rows = pivot(table)
    peers = options.get("peers", PEER_LENGTHS)
    if peers != "none":
        rows += [_as_ours(row, rows[0]) for row in peer_rows(n, [int(x) for x in peers.split(",")])]
    return [*rows, dict.fromkeys(rows[0]) | {"task": leakage_summary(table)}]


def measure_grids(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per task, format and haystack of the shipped grids, in the strata that it has there. options: n (100)
    samples in every stratum, learn (250) samples in every stratum to learn from, configs, length in tokens (of the
    quickstart: its own training length)."""
    n, learn = int(options.get("n", 100)), int(options.get("learn", 250))
    configs, length = options.get("configs", CONFIGS).split(","), int(options.get("length", GRID_LENGTH))
    table = attack(_by_grid(configs, length, n), n, learn, STRATA)
    rows = pivot(table)
    return [*rows, dict.fromkeys(rows[0]) | {"task": leakage_summary(table)}]


def attack(attacked: Iterable[Attacked], n: int, learn: int, strata: int) -> list[LeakageCell]:
    """Every policy and learned attacker on all units. n, learn: samples in each of so many strata; a unit that has
    fewer strata has as many samples as others have answers. Prints the summary."""
    scores: list[PolicyScores] = []
    for tasks, units in attacked:
        for unit in units:
            spread = max(unit.strata, strata)
            whole = replace(unit, first=FIRST, n=n * spread // unit.strata)
            try:
                scores += unit_scores(tasks, whole, POLICIES)
                scores += list(_learned_scores(tasks, whole, learn * spread // unit.strata))
            except NotMade as error:
                print(f"note: {error}")
            tasks.forget()
    table = leakage_table(scores)
    print(leakage_summary(table))
    return table


def _by_task(names: list[str], lengths: list[int], strata: int, n: int) -> Attacked:
    """Each task, or each of those with a name, in one format."""
    every = variants()
    names = names or list(every)
    tasks = TaskSet(build(ProbeConfig, {"tasks": {name: every[name] for name in names}}, "probe"), materials_of())
    units = []
    for name in names:
        grid = {"tasks": [name], "lengths": [f"{length}t" for length in lengths], "depths": strata, "n": n}
        units += _planned(tasks, grid, name)
    return Attacked(tasks, units)


def _by_grid(configs: list[str], length: int, n: int) -> Iterator[Attacked]:
    """The cells of the grids of shipped configs, each once, at one length, each in its strata."""
    seen: set[tuple[str, Formats, int, int]] = set()
    for config in configs:
        shipped = shipped_grids(config)
        named = {f"{config}: {task}": settings for task, settings in shipped.tasks.items()}
        tasks = TaskSet(build(ProbeConfig, {"tasks": named}, "probe"), materials_of())
        units = []
        for grid in shipped.grids:
            of = [f"{config}: {task}" for task in grid.get("tasks", shipped.tasks)]
            for task in of if "none" in grid.get("controls", ["none"]) else ():
                at = {"tasks": [task], "lengths": [f"{shipped.context_length or length}t"], "controls": ["none"]}
                units += _planned(tasks, {**grid, **at, "n": n}, task)
        new = {_cell(tasks, unit): unit for unit in units}
        yield Attacked(tasks, [unit for cell, unit in new.items() if cell not in seen])
        seen |= set(new)


def _cell(tasks: TaskSet, unit: Unit) -> tuple[str, Formats, int, int]:
    """What is attacked in a unit, whatever its task is called. One of another length is the same cell only by its
    own length."""
    return repr(tasks.by_name[unit.task].config), unit.formats, unit.strata, unit.length


def _planned(tasks: TaskSet, grid: dict[str, Any], name: str) -> list[Unit]:
    try:
        plan = tasks.plan([build(Grid, grid, "grid")], 1)
    except EpisodeError as error:
        print(f"note: {name}: {error}")
        return []
    for note in plan.notes:
        print(f"note: {note}")
    return plan.units


def _learned_scores(tasks: TaskSet, unit: Unit, learn: int) -> Iterator[PolicyScores]:
    """Scores of the attackers that learn from other samples of a unit. Raises NotMade where one cannot be made."""
    task, tokenizer = tasks.by_name[unit.task], tasks.tokenizer
    other = replace(unit, first=FIRST_LEARNED, n=learn)
    episodes = made_all(task.episode, other.factors(), unit.label, tokenizer.name)
    known = [Item(episode, query) for episode in episodes for query in episode.queries]
    stats = collect_statistics(known, tokenizer, unit.strata, tasks.materials.corpus)
    seen = [question for item in known if (question := _question(item, stats, tokenizer)) is not None]
    items = [Item(episode, query) for episode in tasks.episodes(unit) for query in episode.queries]
    questions = {(i.episode.digest, i.query.start): _question(i, stats, tokenizer) for i in items}
    for name, attacker in (learned(seen) if seen else {}).items():
        scored = score_unit(unit, tasks, LearnedScorer(name, attacker, questions, tasks), 1 << 22)
        counts = bool(task.solved_by)  # an attacker that counts does the task
        yield PolicyScores(name, unit.task, str(unit.formats), unit.length, *by_sample(scored), is_the_task=counts)


def _question(item: Item, stats: TaskStatistics, tokenizer: Tokenizer) -> Question | None:
    return question_of(item, observe(item, tokenizer, stats), stats, tokenizer)


def _as_ours(row: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """A peer's row with the columns of ours; its chance is not stated, and its budget has a column of ours for its
    format."""
    budget = "no budget" if row["budget"] is None else f"budget {row['budget']}"
    given = {**row, "format": budget, "chance": "not stated"}
    return {name: given.get(name, "") for name in ours}


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader of the rows."""
    return [
        "logistic, boosting: logistic regression and gradient boosting over what can be seen of each value without "
        "its key (place, room left, repetitions, neighbours, form, how often the corpus has it, how often it was "
        "right), learned from other samples.",
        "Rows of lm-eval and RULER v2 are accuracies by their own metric, recall in everything that is printed; "
        "their chance is not stated. RULER v2: five of twelve tasks, the others need MMLU or HotpotQA.",
    ]
