"""No-retrieval (shortcut) baselines: policies that answer without looking up the target key. What they score is
leakage.

Each policy answers every question of a unit that models would answer, and none may score above the
chance that the task states (Hsieh et al. 2024, RULER, arXiv 2404.06654: printing every seven-digit number scores 100
in three of its needle tasks, copying the last ten words 100 in frequent words).

The first answer counts, as for models: printing all values is printing the first, unless the answer is a list. They
answer the units that models answer, in all strata of depth: in the first stratum the target value often comes first,
and "the first value" is right there whatever the question; over all strata it is right as often as any other.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.observation import (
    Observation,
    ObservedValue,
    TaskStatistics,
    collect_statistics,
    observe,
)
from lcprobe.probing.runner import UnitItem, unit_items
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.probing.units import Unit, stratum_centres
from lcprobe.probing.unmade import made_all
from lcprobe.seeds import Stream, seed_of
from lcprobe.tasks.text.tokenizer import Tokenizer

STATISTICS_OFFSET = 1 << 20
"""Statistics are collected from samples with indices that are larger by this much than those of the scored
samples."""
RECENT_PLACES = 32
"""Occurrences of values at a text's end that `most_frequent_of_last_n` counts."""
N_LAST_VALUES = 3
"""How many values `last_n` prints where an answer is no list."""

V = TypeVar("V", bound=Hashable)
Policy = Callable[[Observation, TaskStatistics, Stream], str]
"""Returns what is printed. The stream is that of the question and the policy."""


def dump_all(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """All values in order of appearance; only as many as an answer may have are scored."""
    return _listed(obs.items[: stats.items + 1])


def last_n(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The last values: as many as an answer has items, three where it has one."""
    return _listed(obs.items[-(stats.items if stats.items > 1 else N_LAST_VALUES) :])


def first_distinct(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value that appears first."""
    return obs.values[0].text if obs.values else random_value(obs, stats, rng)


def last_distinct(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value whose first appearance is the last."""
    return obs.values[-1].text if obs.values else random_value(obs, stats, rng)


def most_recent(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value nearest to the question."""
    return max(obs.values, key=lambda v: v.last).text if obs.values else random_value(obs, stats, rng)


def random_value(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """Any value of the text, else anything that may be an answer."""
    names = sorted(v.text for v in obs.values) or obs.pool
    return rng.pick(names) if names else ""


def most_frequent(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value that occurs most often in the text."""
    return _lowest(obs, stats, rng, lambda v: -v.count)


def least_frequent(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value that occurs least often in the text."""
    return _lowest(obs, stats, rng, lambda v: v.count)


def majority_class(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The most frequent answer of other samples, whatever the text."""
    return _most_common(stats.answers.get(obs.number, Counter()), obs, stats, rng)


def answer_prior(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """Of the possible answers here, the one that was most often right in other samples."""
    answers = stats.answers.get(obs.number, Counter())
    return _most_common(Counter({name: answers[name] for name in sorted(obs.pool)}), obs, stats, rng)


def majority_place(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value at the rank that most often had the answer in other samples, counted from the front."""
    return _at_rank(obs, stats.from_front.get(obs.number, Counter()), obs.values, stats, rng)


def majority_place_from_back(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value at the rank that most often had the answer in other samples, counted from the back."""
    return _at_rank(obs, stats.from_back.get(obs.number, Counter()), obs.values[::-1], stats, rng)


def no_needle(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """Any value of the text from which the target needle was cut out."""
    return random_value(obs, stats, rng)


def least_familiar(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value whose line has the word that the fewest contexts of other samples have."""
    return _lowest(obs, stats, rng, lambda v: min((stats.words[word] for word in v.line), default=0))


def rarest_in_text(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value that occurs least often in the corpus, which other samples are hidden in."""
    return _lowest(obs, stats, rng, lambda v: stats.in_text(v.text))


def most_frequent_of_last_n(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value that is most frequent among the last 32 occurrences of values."""
    recent = Counter(text for _, text in sorted((at, v.text) for v in obs.values for at in v.places)[-RECENT_PLACES:])
    return _lowest(obs, stats, rng, lambda v: -recent[v.text])


def same_question(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The rank, or the answer, in other samples whose question is the same but for the words that vary."""
    question = obs.number, obs.question
    if question in stats.ranks_by_question:
        return _at_rank(obs, stats.ranks_by_question[question], obs.values, stats, rng)
    return _most_common(stats.answers_by_question.get(question, Counter()), obs, stats, rng)


def crowded(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value with the least text between it and another."""
    gaps = _gaps(obs)
    return _lowest(obs, stats, rng, lambda v: gaps[v])


def lone(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value with the most text between it and the nearest other one."""
    gaps = _gaps(obs)
    return _lowest(obs, stats, rng, lambda v: -gaps[v])


def nearest_to_a_depth(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value nearest to the centre or an edge of a stratum of depth."""
    step = obs.characters / (2 * stats.strata)
    away = {v: min(abs(at - step * round(at / step)) for at in v.places) for v in obs.values}
    return _lowest(obs, stats, rng, lambda v: away[v])


def at_line_depth(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """The value whose rank among all is the centre of a stratum, any of them: depth times lines."""
    centre = rng.pick(stratum_centres(stats.strata))
    return obs.values[int(centre * len(obs.values))].text if obs.values else random_value(obs, stats, rng)


def room_left(obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """A value with as many tokens as are left of the length, less what follows most answers in other samples."""
    rests = stats.rests.get(obs.number, Counter()).most_common(1)
    wanted = obs.tokens_left - (rests[0][0] if rests else 0)
    fits = [name for name in obs.pool if obs.tokens[name] == wanted]
    return rng.pick(fits) if fits else random_value(obs, stats, rng)


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
        rarest_in_text,
        most_frequent_of_last_n,
        same_question,
        crowded,
        lone,
        nearest_to_a_depth,
        at_line_depth,
        room_left,
    )
}


class PolicyScorer:
    """A Scorer whose answers are those of a policy."""

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        stats: TaskStatistics,
        observations: dict[tuple[str, int, bool], Observation],
    ):
        """observations: a cache that the policies of a unit share."""
        self.name, self.tokenizer, self.stats, self._observations = name, tokenizer, stats, observations

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what the policy prints."""
        return [scored_text(item, self.answer(item), self.tokenizer) for item in items]

    def answer(self, item: Item) -> str:
        """What the policy prints."""
        obs = self._observe(item)
        return POLICIES[self.name](obs, self.stats, Stream("cheating", obs.key, self.name))

    def _observe(self, item: Item) -> Observation:
        without_needle = self.name == no_needle.__name__
        key = item.episode.digest, item.query.start, without_needle
        if key not in self._observations:
            self._observations[key] = observe(item, self.tokenizer, self.stats, without_needle)
        return self._observations[key]


def score_policies(
    unit: Unit, tasks: TaskSet, policies: Iterable[str] = tuple(POLICIES)
) -> dict[str, list[tuple[UnitItem, Score]]]:
    """Scores of policies on a unit, in all of its strata, with the statistics of as many other samples of it.

    Every unit has samples of its own, whereas models get the same ones in every unit: chance in one unit is not
    repeated in all. Raises NotMade where a sample cannot be made.
    """
    task, tokenizer = tasks.by_name[unit.task], tasks.materials.tokenizer
    first = seed_of("cheating", unit.label) % STATISTICS_OFFSET
    own, other = (replace(unit, first=first + offset) for offset in (0, STATISTICS_OFFSET))
    episodes = made_all(task.episode, other.factors(), unit.label, tokenizer.name)
    known = (Item(episode, query) for episode in episodes for query in episode.queries)
    stats = collect_statistics(known, tokenizer, unit.strata, tasks.materials.corpus_to_cut)
    observations: dict[tuple[str, int, bool], Observation] = {}
    items, scores = unit_items(unit.label, own, tasks), {}
    known_scores: dict[tuple[int, str], Score] = {}  # of what several policies print
    for name in policies:
        scorer = PolicyScorer(name, tokenizer, stats, observations)
        scores[name] = []
        for number, one in enumerate(items):
            printed = number, scorer.answer(one.item)
            if printed not in known_scores:
                known_scores[printed] = scored_text(one.item, printed[1], tokenizer)
            scores[name].append((one, known_scores[printed]))
    return scores


def _gaps(obs: Observation) -> dict[ObservedValue, int]:
    """Characters from an occurrence of each value to the nearest one of another."""
    places = sorted(((at, v) for v in obs.values for at in v.places), key=lambda place: place[0])
    return nearest_others(places, places[-1][0] if places else 0)


def nearest_others(places: Sequence[tuple[int, V]], alone: int) -> dict[V, int]:
    """The least distance from each value to a different neighbour. places: ascending; alone: for a value without
    another.
    """
    gaps = dict.fromkeys((value for _, value in places), alone)
    for (at, one), (then, other) in zip(places, places[1:], strict=False):
        if one != other:
            gaps[one], gaps[other] = min(gaps[one], then - at), min(gaps[other], then - at)
    return gaps


def _listed(items: tuple[ObservedValue, ...]) -> str:
    return " and ".join(item.text for item in items)


def _lowest(obs: Observation, stats: TaskStatistics, rng: Stream, key: Callable[[ObservedValue], float]) -> str:
    """A value of the lowest key, equal ones at random."""
    keys = [key(value) for value in obs.values]
    lowest = min(keys, default=0)
    kept = tuple(value for value, own in zip(obs.values, keys, strict=True) if own == lowest)
    return random_value(replace(obs, values=kept), stats, rng)


def _most_common(counts: Counter[str], obs: Observation, stats: TaskStatistics, rng: Stream) -> str:
    """A most frequent string, equal ones at random; any value of the text where there is none."""
    most = max(counts.values(), default=0)
    names = [name for name, count in counts.items() if count == most]
    return rng.pick(names) if names else random_value(obs, stats, rng)


def _at_rank(
    obs: Observation, counts: Counter[int], values: tuple[ObservedValue, ...], stats: TaskStatistics, rng: Stream
) -> str:
    """The value at the most frequent rank that this text has; any value of the text where there is none."""
    ranks = [rank for rank, _ in counts.most_common() if rank < len(values)]
    return values[ranks[0]].text if ranks else random_value(obs, stats, rng)
