"""Attacks that need no retrieval, on every task over the strata of the shipped grids: the policies of the leakage
check and attackers that have learned from training samples, against the stated chance; then the same on RULER.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lcprobe.analysis.leakage import PolicyScores, leakage_summary, leakage_table
from lcprobe.errors import EpisodeError
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.cheating import POLICIES
from lcprobe.probing.policies.observation import TaskStatistics, collect_statistics, observe
from lcprobe.probing.runner import score_unit
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.probing.units import Unit
from lcprobe.probing.unmade import NotMade
from lcprobe.schema import build
from lcprobe.seeds import Stream
from lcprobe.studies.evaluation.leakage import by_sample, pivot, unit_scores
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.attacks.learned import Attacker, Question, learned, named, question_of
from validation.attacks.peers import peer_rows
from validation.variants import materials_of, variants

TITLE = "attacks without retrieval: + above its own 95 % range, ! exceeds chance (Holm over the table), * the task"
OPTIONS = ("n", "learn", "strata", "lengths", "tasks", "peers")
LENGTHS, PEER_LENGTHS = "512,4096", "1024,4096"
FIRST, FIRST_LEARNED = 1 << 19, 1 << 18
"""First samples of units that are attacked, and of those that attackers learn from, of the training split."""


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
    """One row per task, format and length, one column per attack. options: n (100) samples in every stratum, learn
    (250) samples in every stratum to learn from, strata (5), lengths, tasks; peers: lengths of RULER's, or none."""
    n, learn, strata = (
        int(options.get(name, default)) for name, default in (("n", 100), ("learn", 250), ("strata", 5))
    )
    lengths, every = [int(x) for x in options.get("lengths", LENGTHS).split(",")], variants()
    names = options["tasks"].split(",") if "tasks" in options else list(every)
    tasks = TaskSet(build(ProbeConfig, {"tasks": {name: every[name] for name in names}}, "probe"), materials_of())
    scores: list[PolicyScores] = []
    for name in names:
        grid = {"tasks": [name], "lengths": [f"{length}t" for length in lengths], "depths": strata, "n": n}
        try:
            plan = tasks.plan([build(Grid, grid, "grid")], lengths[0])
        except EpisodeError as error:
            print(f"note: {name}: {error}")
            continue
        for note in plan.notes:
            print(f"note: {note}")
        for unit in plan.units:
            # a task without a depth has as many samples as others have answers
            whole = replace(unit, first=FIRST, n=n * strata // unit.strata)
            try:
                scores += unit_scores(tasks, whole, POLICIES)
                scores += list(_learned_scores(tasks, whole, learn * strata // unit.strata))
            except NotMade as error:
                print(f"note: {error}")
            tasks.forget()
    table = leakage_table(scores)
    print(leakage_summary(table))
    rows = pivot(table)
    peers = options.get("peers", PEER_LENGTHS)
    if peers != "none":
        rows += [_as_ours(row, rows[0]) for row in peer_rows(n, [int(x) for x in peers.split(",")])]
    return [*rows, dict.fromkeys(rows[0]) | {"task": leakage_summary(table)}]


def _learned_scores(tasks: TaskSet, unit: Unit, learn: int) -> Iterator[PolicyScores]:
    """Scores of the attackers that learn from training samples of a unit."""
    task, tokenizer = tasks.by_name[unit.task], tasks.tokenizer
    other = replace(unit, first=FIRST_LEARNED, n=learn)
    episodes = [task.episode(replace(factors, split="train")) for factors in other.factors()]
    known = [Item(episode, query) for episode in episodes for query in episode.queries]
    stats = collect_statistics(known, tokenizer, unit.strata)
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
        "its key (place, room left, repetitions, neighbours, form, how often it was right), learned from training "
        "samples.",
        "Rows of lm-eval and RULER v2 are accuracies by their own metric, recall in everything that is printed; "
        "their chance is not stated. RULER v2: five of twelve tasks, the others need MMLU or HotpotQA.",
    ]
