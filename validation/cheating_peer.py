"""The cheating battery on lm-eval's RULER: the same policies on the six tasks that it builds offline, by its own metric.

Each policy of ours by its name. Where one cannot apply, the cell says why (`the task`: frequent words are what is asked for).

Its answers are scored by recall over everything that is printed within the task's budget of tokens (128 for needles, 30, 120
and 50), so that policies print as much as fits. Needs the extra `lmeval`; the numbers are lm-eval's, not RULER's.
"""

import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.analysis.stats.intervals import clustered_wilson
from lcprobe.errors import ConfigError
from lcprobe.probing.policies.cheating import POLICIES as OURS
from lcprobe.probing.policies.cheating import WINDOW
from lcprobe.probing.policies.observation import WORDS
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

TITLE = "accuracy of policies that look nothing up, on lm-eval's RULER"
OPTIONS = ("n", "lengths")
NEEDLE = r" is: (\S+?)\.(?=\s)"
VALUES = {
    "niah_single_1": NEEDLE,
    "niah_multikey_2": NEEDLE,
    "niah_multikey_3": NEEDLE,
    "ruler_vt": r"VAR ([A-Z]+)",
    "ruler_cwe": r"\d+\. ([\w-]+)",
    "ruler_fwe": r"\b([a-z]{6})(?= )",
}
"""Tasks, and how their values look in the text."""
COUNTING = ("ruler_cwe", "ruler_fwe")
"""Here the most frequent values are the task itself."""


@dataclass(frozen=True)
class Seen:
    """values: of one document in order of appearance, repeated as they are. wanted: how many the question says it wants. answers,
    places, places_from_back: of other documents, the most frequent first; a place is the rank of a value among the distinct ones.
    familiar: in how many of these each word stands; lines: the words of the line in which each value stands
    first; gaps: characters to the nearest other one.
    """

    values: Sequence[str]
    wanted: int
    answers: Sequence[str]
    places: Sequence[int]
    places_from_back: Sequence[int]
    without: Sequence[str]
    familiar: Counter[str]
    lines: Mapping[str, Sequence[str]]
    gaps: Mapping[str, int]
    draw: Stream

    @property
    def distinct(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(self.values))


POLICIES: dict[str, Callable[[Seen], Sequence[str]]] = {
    "dump_all": lambda s: s.distinct,
    "last_n": lambda s: s.distinct[::-1],
    "first_distinct": lambda s: s.distinct[: s.wanted],
    "last_distinct": lambda s: s.distinct[-s.wanted :],
    "most_recent": lambda s: list(dict.fromkeys(reversed(s.values)))[: s.wanted],
    "random_value": lambda s: _some(s.distinct, s.wanted, s.draw),
    "most_frequent": lambda s: _first_by(s, lambda v, n=Counter(s.values): -n[v]),
    "least_frequent": lambda s: _first_by(s, lambda v, n=Counter(s.values): n[v]),
    "most_frequent_of_last_n": lambda s: _first_by(s, lambda v, n=Counter(s.values[-WINDOW:]): -n[v]),
    "least_familiar": lambda s: _first_by(s, lambda v: min((s.familiar[w] for w in s.lines[v]), default=0)),
    "majority_class": lambda s: s.answers[: s.wanted],
    "answer_prior": lambda s: [a for a in s.answers if a in set(s.values)][: s.wanted],
    "majority_place": lambda s: [s.distinct[p] for p in s.places if p < len(s.distinct)][: s.wanted],
    "majority_place_from_back": lambda s: [s.distinct[-1 - p] for p in s.places_from_back if p < len(s.distinct)][
        : s.wanted
    ],
    "crowded": lambda s: _first_by(s, lambda v: s.gaps[v]),
    "lone": lambda s: _first_by(s, lambda v: -s.gaps[v]),
    "no_needle": lambda s: _some(list(dict.fromkeys(s.without)), s.wanted, s.draw),
}


NOT_APPLICABLE = {"same_question": "its questions are worded alike"}
"""Policies of ours that nothing is left of there, and why."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row a task and length, one column a policy. options: n (100) documents, lengths (1024,4096)."""
    n, tokenizer, rows = int(options.get("n", 100)), load_tokenizer(), []
    for length in map(int, options.get("lengths", "1024,4096").split(",")):
        for name, task in _tasks(length).items():
            docs = list(task.eval_docs)[: 2 * n]
            found = [re.findall(VALUES[name], doc["input"]) for doc in docs]
            lessons, familiar = _lessons(docs[n:], found[n:]), Counter[str]()
            for doc in docs[n:]:
                familiar.update(set(WORDS.findall(doc["input"])))
            budget = int(task.config.generation_kwargs["max_gen_toks"])
            row: dict[str, Any] = {
                "task": f"lm-eval {version('lm_eval')} {name}",
                "length": length,
                "n": n,
                "budget": budget,
            }
            sights = []
            for doc, values in zip(docs[:n], found[:n], strict=True):
                without = [v for v in values if v not in doc["outputs"]]
                lines = {v: _line(doc["input"], v) for v in dict.fromkeys(values)}
                gaps = _gaps(VALUES[name], doc["input"])
                sights.append((values, len(doc["outputs"]), *lessons, without, familiar, lines, gaps))
            for policy in OURS:
                row[policy.replace("_", " ")] = NOT_APPLICABLE.get(policy) or _scored(
                    policy, name, task, docs, sights, budget, tokenizer
                )
            rows.append(row)
    return rows


def _scored(
    policy: str,
    name: str,
    task: Any,
    docs: list[dict[str, Any]],
    sights: list[tuple[Any, ...]],
    budget: int,
    tokenizer: Tokenizer,
) -> str:
    if policy.startswith("most_frequent") and name in COUNTING:
        return "the task"
    hits, trials = [], []
    for index, (doc, sight) in enumerate(zip(docs, sights, strict=False)):
        seen = Seen(*sight, draw=Stream("cheating peer", name, policy, index))
        said = _cut(", ".join(POLICIES[policy](seen)), budget, tokenizer)
        score = next(v for v in task.process_results(doc, [said]).values() if v >= 0)  # the other lengths are -1
        hits.append(score * seen.wanted)
        trials.append(seen.wanted)
    low, high = clustered_wilson(np.array(hits), np.array(trials))
    return f"{sum(hits) / sum(trials):.2f} ({low:.2f}–{high:.2f})"


def _lessons(docs: list[dict[str, Any]], found: list[list[str]]) -> tuple[list[str], list[int], list[int]]:
    answers: Counter[str] = Counter()
    places: Counter[int] = Counter()
    from_back: Counter[int] = Counter()
    for doc, values in zip(docs, found, strict=True):
        distinct = list(dict.fromkeys(values))
        answers.update(doc["outputs"])
        places.update(distinct.index(v) for v in doc["outputs"] if v in distinct)
        from_back.update(len(distinct) - 1 - distinct.index(v) for v in doc["outputs"] if v in distinct)
    return (
        [a for a, _ in answers.most_common()],
        [p for p, _ in places.most_common()],
        [p for p, _ in from_back.most_common()],
    )


def _line(text: str, value: str) -> list[str]:
    """The words from the last end of a sentence or line up to a value's first place."""
    at = text.find(value)
    return WORDS.findall(text[max(text.rfind(end, 0, at) for end in (". ", "\n")) + 1 : at + len(value)])


def _gaps(pattern: str, text: str) -> dict[str, int]:
    """Characters from a place of each value to the nearest place of another."""
    places = [(found.start(1), found[1]) for found in re.finditer(pattern, text)]
    gaps = dict.fromkeys((v for _, v in places), len(text))
    for (at, one), (then, other) in zip(places, places[1:], strict=False):
        if one != other:
            gaps[one], gaps[other] = min(gaps[one], then - at), min(gaps[other], then - at)
    return gaps


def _first_by(s: Seen, key: Callable[[str], int]) -> list[str]:
    """As many values as are wanted, equal ones in random order."""
    return sorted(_some(s.distinct, len(s.distinct), s.draw), key=key)[: s.wanted]


def _some(values: list[str], n: int, draw: Stream) -> list[str]:
    return [values[i] for i in draw.permutation(len(values))[:n]]


def _cut(text: str, budget: int, tokenizer: Tokenizer) -> str:
    """What fits into the budget of tokens."""
    return tokenizer.decode(tokenizer.encode(text)[:budget])


def _tasks(length: int) -> dict[str, Any]:
    """lm-eval's task objects, made with the shipped tokenizer. Raises ConfigError without lm-eval."""
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError:
        raise ConfigError("benchmark", "no package lm_eval", "after: pip install 'lcprobe[lmeval]'") from None
    from importlib import resources

    made = {}
    with tempfile.TemporaryDirectory() as folder:
        text = (resources.files("lcprobe.tasks") / "assets" / "bpe4k.json").read_text(encoding="utf-8")
        (Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")
        (Path(folder) / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
        )
        metadata: dict[str, Any] = {"max_seq_lengths": [length], "tokenizer": folder}
        manager = TaskManager(metadata=metadata)
        for name in VALUES:
            random.seed(0)  # its generators draw from the global streams
            np.random.seed(0)
            made[name] = get_task_dict([name], manager)[name]
    return made
