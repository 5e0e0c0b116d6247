"""Policies that never look up what is asked: what they score is what a task gives away.

Each answers every question of a unit through the runner that models go through, and none may score above the chance that the
task states (Hsieh et al. 2024, RULER, arXiv 2404.06654: printing every seven-digit number scores 100 in three of its needle
tasks, copying the last ten words 100 in frequent words).

The first answer counts, as for models: printing all values is printing the first, unless the answer is a list. The asked
needle's depth is drawn anew for every sample, evenly from 0 to 1: at depth 0 the asked value comes first by definition, and
"the first value" is right in that cell whatever is asked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from lcprobe.probing.grid import TaskSet, Unit
from lcprobe.probing.policies.observation import Found, Observation, TaskStatistics, collect_statistics, observe
from lcprobe.probing.runner import score_unit
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.seeds import Stream, seed_of
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Factors
from lcprobe.tasks.text.tokenizer import Tokenizer

LESSONS_AFTER = 1 << 20
"""Samples that policies learn from lie so far behind those that are asked."""
GOLDEN = 0.6180339887498949
WINDOW = 32
"""Places of values at a text's end that a policy counts."""
LAST = 3
"""How many values `last_n` prints where an answer is no list."""

Policy = Callable[[Observation, TaskStatistics, Stream], str]
"""What is printed. The stream is the question's and the policy's own."""


def dump_all(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """All values in order of appearance; what would be printed after an answer's length is not looked at."""
    return _listed(sight.items[: lessons.items + 1])


def last_n(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The last values: as many as an answer has items, three where it has one."""
    return _listed(sight.items[-(lessons.items if lessons.items > 1 else LAST) :])


def first_distinct(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value that appears first."""
    return sight.values[0].text if sight.values else random_value(sight, lessons, draw)


def last_distinct(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value that appears last for the first time."""
    return sight.values[-1].text if sight.values else random_value(sight, lessons, draw)


def most_recent(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value that stands nearest to the question."""
    return max(sight.values, key=lambda v: v.last).text if sight.values else random_value(sight, lessons, draw)


def random_value(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """Any value of the text, else anything that may be an answer."""
    names = sorted(v.text for v in sight.values) or sight.pool
    return draw.pick(names) if names else ""


def most_frequent(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value that stands in the text most often."""
    most = max((v.count for v in sight.values), default=0)
    return random_value(replace(sight, values=tuple(v for v in sight.values if v.count == most)), lessons, draw)


def least_frequent(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value that stands in the text least often."""
    least = min((v.count for v in sight.values), default=0)
    return random_value(replace(sight, values=tuple(v for v in sight.values if v.count == least)), lessons, draw)


def majority_class(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The most frequent answer of other samples, whatever this text holds."""
    return _most(lessons.answers.get(sight.number, Counter()), sight, lessons, draw)


def answer_prior(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """Of what may be the answer here, what most often was one in other samples."""
    known = lessons.answers.get(sight.number, Counter())
    return _most(Counter({name: known[name] for name in sorted(sight.pool)}), sight, lessons, draw)


def majority_place(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value at the place where other samples most often had the answer, from the front."""
    return _at(sight, lessons.from_front.get(sight.number, Counter()), range(len(sight.values)), lessons, draw)


def majority_place_from_back(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The same, counted from the back."""
    return _at(
        sight, lessons.from_back.get(sight.number, Counter()), range(len(sight.values) - 1, -1, -1), lessons, draw
    )


def no_needle(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """Any value of the text from which the asked needle was cut out."""
    return random_value(sight, lessons, draw)


def least_familiar(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value in whose line, or entry, stands the word that the fewest contexts of other samples have."""
    known = {v: min((lessons.words[word] for word in v.line), default=0) for v in sight.values}
    least = min(known.values(), default=0)
    return random_value(replace(sight, values=tuple(v for v in sight.values if known[v] == least)), lessons, draw)


def most_frequent_of_last_n(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value that stands most often among the last 32 places at which one stands."""
    last = Counter(text for _, text in sorted((at, v.text) for v in sight.values for at in v.places)[-WINDOW:])
    most = max(last.values(), default=0)
    return random_value(replace(sight, values=tuple(v for v in sight.values if last[v.text] == most)), lessons, draw)


def same_question(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The place, or the answer, that other samples had whose question is the same but for the words that vary."""
    asked = sight.number, sight.question
    if asked in lessons.places_by_question:
        return _at(sight, lessons.places_by_question[asked], range(len(sight.values)), lessons, draw)
    return _most(lessons.answers_by_question.get(asked, Counter()), sight, lessons, draw)


def crowded(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value with the least text between it and another."""
    gaps = _gaps(sight)
    least = min(gaps.values(), default=0)
    return random_value(replace(sight, values=tuple(v for v in sight.values if gaps[v] == least)), lessons, draw)


def lone(sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    """The value with the most text between it and the nearest other one."""
    gaps = _gaps(sight)
    most = max(gaps.values(), default=0)
    return random_value(replace(sight, values=tuple(v for v in sight.values if gaps[v] == most)), lessons, draw)


POLICIES: Mapping[str, Policy] = {
    policy.__name__: policy
    for policy in (
        dump_all,
        last_n,
        first_distinct,
        last_distinct,
        most_recent,
        random_value,
        most_frequent,
        least_frequent,
        majority_class,
        answer_prior,
        majority_place,
        majority_place_from_back,
        no_needle,
        least_familiar,
        most_frequent_of_last_n,
        same_question,
        crowded,
        lone,
    )
}


class PolicyScorer:
    """A policy behind the protocol that models are scored through."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        lessons: TaskStatistics,
        sights: dict[tuple[str, int, bool], Observation],
    ):
        """sights: what was seen before, shared by the policies of a unit."""
        self.name, self.tokenizer, self.lessons, self._sights = name, tokenizer, lessons, sights

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what the policy prints."""
        return [scored_text(item, self._says(item), self.tokenizer) for item in items]

    def _says(self, item: Item) -> str:
        sight = self._sight(item)
        return POLICIES[self.name](sight, self.lessons, Stream("cheating", sight.key, self.name))

    def _sight(self, item: Item) -> Observation:
        blind = self.name == no_needle.__name__
        key = item.episode.digest, item.query.start, blind
        if key not in self._sights:
            self._sights[key] = observe(item, self.tokenizer, self.lessons, blind)
        return self._sights[key]


@dataclass(frozen=True)
class SpreadUnit(Unit):
    """A unit whose samples have a depth each, evenly spread (the golden ratio's multiples), instead of one for all.

    Every unit has samples of its own, where models are asked the same ones everywhere: what is luck in one is not in all.

    cells: the depth that stands for tasks without one, and the number of samples.
    """

    moves: bool = True

    def factors(self) -> list[Factors]:
        """Every sample, each at its own depth."""
        ((middle, n),) = self.cells
        depths = [((i + 1) * GOLDEN) % 1 if self.moves else middle for i in range(n)]
        return [Factors(self.formats, self.length, depths[i], self.first + i, self.control) for i in range(n)]


def cheat(
    unit: Unit, tasks: TaskSet, n: int, policies: Iterable[str] = tuple(POLICIES)
) -> dict[str, list[tuple[Factors, Item, Score]]]:
    """Policies on n samples of a unit's task, formats and length, after n others to learn from.

    Raises EpisodeError when a sample cannot be built.
    """
    moves, tokenizer = tasks.made[unit.task].axes.depth, tasks.materials.tokenizer
    begin = seed_of("cheating", unit.label) % LESSONS_AFTER
    spread = SpreadUnit(unit.task, unit.formats, unit.length, "none", ((0.5, n),), begin, moves)
    taught = replace(spread, first=begin + LESSONS_AFTER)
    lessons = collect_statistics(
        [
            Item(episode, query)
            for episode in map(tasks.made[unit.task].episode, taught.factors())
            for query in episode.queries
        ],
        tokenizer,
    )
    sights: dict[tuple[str, int, bool], Observation] = {}
    batch = max(unit.length, 1 << 22)  # nothing is read into a model: batches may be large
    return {
        name: score_unit(spread, tasks, PolicyScorer(name, tokenizer, lessons, sights), batch) for name in policies
    }


def solvers(task: Task) -> tuple[str, ...]:
    """Policies that do just what a task asks, which is then no cheating: counting words solves a task of counting words."""
    return task.solved_by


def _gaps(sight: Observation) -> dict[Found, int]:
    """Characters from a place of each value to the nearest place of another."""
    places = sorted(((at, v) for v in sight.values for at in v.places), key=lambda p: p[0])
    gaps = dict.fromkeys(sight.values, places[-1][0] if places else 0)
    for (at, one), (then, other) in zip(places, places[1:], strict=False):
        if one is not other:
            gaps[one], gaps[other] = min(gaps[one], then - at), min(gaps[other], then - at)
    return gaps


def _listed(items: tuple[Found, ...]) -> str:
    return " and ".join(item.text for item in items)


def _most(counted: Counter[str], sight: Observation, lessons: TaskStatistics, draw: Stream) -> str:
    most = max(counted.values(), default=0)
    names = [name for name, count in counted.items() if count == most]
    return draw.pick(names) if names else random_value(sight, lessons, draw)


def _at(sight: Observation, counted: Counter[int], order: range, lessons: TaskStatistics, draw: Stream) -> str:
    places = [place for place, _ in counted.most_common() if place < len(order)]
    return sight.values[order[places[0]]].text if places else random_value(sight, lessons, draw)
