"""Learned attackers: logistic regression and gradient boosting over what can be seen of a value without reading its
key.

Every value that may be the answer is a row: where it stands and how often, its length in characters and tokens, the
room that is left for it, how rare it and the words of its line are, in other contexts and in the corpus, how often it
was right in other samples. An attacker learns from other samples which rows are answers, and names the value that it
thinks most likely. They are samples to probe with, for those to train with are not made in all the same ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lcprobe.probing.policies.cheating import nearest_others
from lcprobe.probing.policies.observation import Observation, ObservedValue, TaskStatistics
from lcprobe.probing.scoring import Item
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer

MAX_ROWS_PER_QUESTION = 32
"""Values of one question that an attacker learns from, the answer included."""
STRATA = 5
"""Depths are also given relative to the centres and edges of this many strata."""


@dataclass(frozen=True)
class Question:
    """names: the values that may be the answer; features: (n_names, n_features); right: (n_names,) which are it."""

    names: tuple[str, ...]
    features: np.ndarray
    right: np.ndarray


class Attacker(Protocol):
    """Scores of rows: higher where a value is more likely the answer."""

    def __call__(self, features: np.ndarray) -> np.ndarray: ...


def question_of(item: Item, obs: Observation, stats: TaskStatistics, tokenizer: Tokenizer) -> Question | None:
    """What an attacker sees of a question of our tasks; None where nothing may be the answer."""
    values = obs.values or tuple(ObservedValue(name, (0,)) for name in sorted(obs.pool))
    if not values:
        return None
    tokens = [len(tokenizer.piece(" " + value.text)) for value in values]
    earlier = {query.answer for query in item.episode.queries[: obs.number]}
    rows = features_of(
        values,
        tokens,
        left=obs.tokens_left,
        size=obs.characters,
        familiar=[min((stats.words[word] for word in value.line), default=0) for value in values],
        in_text=[stats.in_text(value.text) for value in values],
        line_in_text=[min((stats.in_text(word) for word in value.line), default=0) for value in values],
        prior=[stats.answers.get(obs.number, {}).get(value.text, 0) for value in values],
        earlier=earlier,
    )
    number = np.full((len(values), 1), float(obs.number))
    asked = np.full((len(values), 1), float(len(obs.question)))
    right = np.array([value.text == item.query.answer for value in values])
    return Question(tuple(value.text for value in values), np.hstack([rows, number, asked]), right)


def features_of(
    values: Sequence[ObservedValue],
    tokens: Sequence[int],
    left: int,
    size: int,
    familiar: Sequence[int],
    in_text: Sequence[int],
    line_in_text: Sequence[int],
    prior: Sequence[int],
    earlier: set[str],
) -> np.ndarray:
    """(n_values, n_features) of values in order of appearance. tokens: of each; left: until the length's end; size:
    characters of the prompt; familiar: how many other contexts have the rarest word of its line; in_text,
    line_in_text: how often the corpus has the value, and the rarest word of its line; prior: how often it was right;
    earlier: answers to earlier questions."""
    n = len(values)
    first, last = (np.array([at(v) for v in values], float) for at in (lambda v: v.first, lambda v: v.last))
    rank = np.arange(n, dtype=float)
    sizes, counts = np.array(tokens, float), np.array([v.count for v in values], float)
    depth = first / max(size, 1)
    in_stratum = depth * STRATA - np.floor(depth * STRATA)
    nearest = nearest_others(sorted(((at, v) for v in values for at in v.places), key=lambda x: x[0]), size)
    answered = [i for i, v in enumerate(values) if v.text in earlier]
    since = np.array([min((abs(i - j) for j in answered), default=n) for i in range(n)], float)
    numeric = np.array([float(v.text) if v.text.isdigit() and len(v.text) < 16 else -1.0 for v in values])
    columns = [
        rank, n - 1 - rank, rank / max(n - 1, 1), np.full(n, float(n)), first, last, size - last, depth,
        last / max(size, 1), np.abs(in_stratum - 0.5), np.abs(np.round(depth * (STRATA - 1)) - depth * (STRATA - 1)),
        counts, counts / counts.sum(), _order(counts),
        np.array([nearest[v] for v in values], float),
        np.diff(first, prepend=0.0), np.diff(first, append=float(size)),
        np.array([len(v.text) for v in values], float), sizes, np.full(n, float(left)), left - sizes,
        np.abs(left - sizes), _order(sizes), np.array([len(v.line) for v in values], float),
        np.array(familiar, float), _order(np.array(familiar, float)), np.log1p(np.array(prior, float)),
        np.log1p(np.array(in_text, float)), _order(np.array(in_text, float)),
        np.log1p(np.array(line_in_text, float)), _order(np.array(line_in_text, float)),
        np.array([float(v.text in earlier) for v in values]), since, numeric, _order(numeric),
        np.array([ord(v.text[0]) for v in values], float), np.array([ord(v.text[-1]) for v in values], float),
        _order_of_texts([v.text for v in values]),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def learned(questions: Sequence[Question]) -> dict[str, Attacker]:
    """Attackers that have learned from questions whose answers are known; none where no answer is ever visible."""
    rows, right = [], []
    for number, question in enumerate(questions):
        kept = _kept(question, number)
        rows.append(question.features[kept])
        right.append(question.right[kept])
    x, y = np.concatenate(rows), np.concatenate(right)
    if y.min() == y.max():
        return {}
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(x, y)
    boosting = HistGradientBoostingClassifier(max_iter=80, random_state=0).fit(x, y)
    return {
        "logistic": lambda features: logistic.decision_function(features),
        "boosting": lambda features: boosting.decision_function(features),
    }


def named(attacker: Attacker, question: Question, rng: Stream, n: int = 1) -> list[str]:
    """The n likeliest values, equal ones at random."""
    order = rng.permutation(len(question.names))
    scores = attacker(question.features)[order]
    return [question.names[order[i]] for i in np.argsort(-scores, kind="stable")[:n]]


def _kept(question: Question, number: int) -> np.ndarray:
    """The rows that are learned from: the answers, and some of the others."""
    wrong = np.flatnonzero(~question.right)
    if len(wrong) >= MAX_ROWS_PER_QUESTION:
        chosen = Stream("learned attackers", number).permutation(len(wrong))[: MAX_ROWS_PER_QUESTION - 1]
        wrong = wrong[np.asarray(chosen)]
    return np.concatenate([np.flatnonzero(question.right), wrong])


def _order(values: np.ndarray) -> np.ndarray:
    """(n,) share of the values that are smaller."""
    return (values[:, None] > values[None, :]).mean(axis=1)


def _order_of_texts(texts: Sequence[str]) -> np.ndarray:
    place = {text: i for i, text in enumerate(sorted(texts))}
    return np.array([place[text] / len(texts) for text in texts])
