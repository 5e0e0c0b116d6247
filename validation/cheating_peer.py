"""No-retrieval policies on lm-eval's RULER: on the six tasks that it builds offline, by its own metric.

Each of our policies has a counterpart of the same name. Where one does not apply, the cell says why (`the task`: the
task is to find frequent words).

lm-eval scores answers by recall over everything that is printed within the task's budget of tokens (128 for needles,
30, 120 and 50), so policies print as much as fits. Needs the extra `lmeval`; the numbers are lm-eval's, not RULER's.
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
from lcprobe.probing.policies.cheating import POLICIES, RECENT_PLACES, nearest_others
from lcprobe.probing.policies.observation import WORD
from lcprobe.probing.units import stratum_centres
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

TITLE = "accuracy of no-retrieval policies on lm-eval's RULER"
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
"""Patterns of the values in the text, by task."""
STRATA = 5
"""Of depth, as in our grids."""
COUNTING = ("ruler_cwe", "ruler_fwe")
"""Tasks whose answer is the most frequent values."""


@dataclass(frozen=True)
class Document:
    """The values of one document, in order of appearance with repetitions. wanted: how many the question asks for.
    answers, ranks, ranks_from_back: of other documents, the most frequent first; a rank is that of a value among the
    distinct ones. without: values that are no answer. familiar: how many of the other documents have each word;
    lines: the words of the line of each value's first occurrence; gaps: characters to the nearest other value.
    """

    values: Sequence[str]
    wanted: int
    answers: Sequence[str]
    ranks: Sequence[int]
    ranks_from_back: Sequence[int]
    without: Sequence[str]
    familiar: Counter[str]
    lines: Mapping[str, Sequence[str]]
    gaps: Mapping[str, int]
    rng: Stream

    @property
    def distinct(self) -> list[str]:
        """The distinct values, in order of first appearance."""
        return list(dict.fromkeys(self.values))


PEER_POLICIES: dict[str, Callable[[Document], Sequence[str]]] = {
    "dump_all": lambda s: s.distinct,
    "last_n": lambda s: s.distinct[::-1],
    "first_distinct": lambda s: s.distinct[: s.wanted],
    "last_distinct": lambda s: s.distinct[-s.wanted :],
    "most_recent": lambda s: list(dict.fromkeys(reversed(s.values)))[: s.wanted],
    "random_value": lambda s: _some(s.distinct, s.wanted, s.rng),
    "most_frequent": lambda s: _first_by(s, lambda v, n=Counter(s.values): -n[v]),
    "least_frequent": lambda s: _first_by(s, lambda v, n=Counter(s.values): n[v]),
    "most_frequent_of_last_n": lambda s: _first_by(s, lambda v, n=Counter(s.values[-RECENT_PLACES:]): -n[v]),
    "least_familiar": lambda s: _first_by(s, lambda v: min((s.familiar[w] for w in s.lines[v]), default=0)),
    "majority_class": lambda s: s.answers[: s.wanted],
    "answer_prior": lambda s: [a for a in s.answers if a in set(s.values)][: s.wanted],
    "majority_place": lambda s: [s.distinct[p] for p in s.ranks if p < len(s.distinct)][: s.wanted],
    "majority_place_from_back": lambda s: [s.distinct[-1 - p] for p in s.ranks_from_back if p < len(s.distinct)][
        : s.wanted
    ],
    "crowded": lambda s: _first_by(s, lambda v: s.gaps[v]),
    "lone": lambda s: _first_by(s, lambda v: -s.gaps[v]),
    "no_needle": lambda s: _some(list(dict.fromkeys(s.without)), s.wanted, s.rng),
    "at_line_depth": lambda s: [s.distinct[int(s.rng.pick(stratum_centres(STRATA)) * len(s.distinct))]][: s.wanted],
}


NOT_APPLICABLE = {
    "same_question": "all questions have one wording",
    "nearest_to_a_depth": "all needles are at its 40 depths",
}
"""Policies without a counterpart, and why."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per task and length, one column per policy. options: n (100) documents, lengths (1024,4096)."""
    n, tokenizer, rows = int(options.get("n", 100)), load_tokenizer(), []
    for length in map(int, options.get("lengths", "1024,4096").split(",")):
        for name, task in _tasks(length).items():
            docs = list(task.eval_docs)[: 2 * n]
            values_of = [re.findall(VALUES[name], doc["input"]) for doc in docs]
            stats, familiar = _statistics(docs[n:], values_of[n:]), Counter[str]()
            for doc in docs[n:]:
                familiar.update(set(WORD.findall(doc["input"])))
            budget = int(task.config.generation_kwargs["max_gen_toks"])
            row: dict[str, Any] = {
                "task": f"lm-eval {version('lm_eval')} {name}",
                "length": length,
                "n": n,
                "budget": budget,
            }
            documents = []
            for doc, values in zip(docs[:n], values_of[:n], strict=True):
                without = [v for v in values if v not in doc["outputs"]]
                lines = {v: _line(doc["input"], v) for v in dict.fromkeys(values)}
                gaps = _gaps(VALUES[name], doc["input"])
                documents.append((values, len(doc["outputs"]), *stats, without, familiar, lines, gaps))
            for policy in POLICIES:
                row[policy.replace("_", " ")] = NOT_APPLICABLE.get(policy) or _accuracy(
                    policy, name, task, docs, documents, budget, tokenizer
                )
            rows.append(row)
    return rows


def _accuracy(
    policy: str,
    name: str,
    task: Any,
    docs: list[dict[str, Any]],
    documents: list[tuple[Any, ...]],
    budget: int,
    tokenizer: Tokenizer,
) -> str:
    """A policy's accuracy over all documents with its 95 % interval."""
    if policy.startswith("most_frequent") and name in COUNTING:
        return "the task"
    hits, trials = [], []
    for index, (doc, observed) in enumerate(zip(docs, documents, strict=False)):
        document = Document(*observed, rng=Stream("cheating peer", name, policy, index))
        printed = _truncated(", ".join(PEER_POLICIES[policy](document)), budget, tokenizer)
        score = next(v for v in task.process_results(doc, [printed]).values() if v >= 0)  # the other lengths are -1
        hits.append(score * document.wanted)
        trials.append(document.wanted)
    low, high = clustered_wilson(np.array(hits), np.array(trials))
    return f"{sum(hits) / sum(trials):.2f} ({low:.2f}–{high:.2f})"


def _statistics(docs: list[dict[str, Any]], values_of: list[list[str]]) -> tuple[list[str], list[int], list[int]]:
    answers: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    from_back: Counter[int] = Counter()
    for doc, values in zip(docs, values_of, strict=True):
        distinct = list(dict.fromkeys(values))
        answers.update(doc["outputs"])
        ranks.update(distinct.index(v) for v in doc["outputs"] if v in distinct)
        from_back.update(len(distinct) - 1 - distinct.index(v) for v in doc["outputs"] if v in distinct)
    return (
        [a for a, _ in answers.most_common()],
        [p for p, _ in ranks.most_common()],
        [p for p, _ in from_back.most_common()],
    )


def _line(text: str, value: str) -> list[str]:
    """The words from the last end of a sentence or line up to a value's first occurrence."""
    at = text.find(value)
    return WORD.findall(text[max(text.rfind(end, 0, at) for end in (". ", "\n")) + 1 : at + len(value)])


def _gaps(pattern: str, text: str) -> dict[str, int]:
    """Characters from an occurrence of each value to the nearest one of another."""
    return nearest_others([(match.start(1), match[1]) for match in re.finditer(pattern, text)], len(text))


def _first_by(s: Document, key: Callable[[str], int]) -> list[str]:
    """The first values by a key, as many as the question asks for, equal ones in random order."""
    return sorted(_some(s.distinct, len(s.distinct), s.rng), key=key)[: s.wanted]


def _some(values: list[str], n: int, rng: Stream) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))[:n]]


def _truncated(text: str, budget: int, tokenizer: Tokenizer) -> str:
    """The part of a text that fits into the budget of tokens."""
    return tokenizer.decode(tokenizer.encode(text)[:budget])


def _tasks(length: int) -> dict[str, Any]:
    """lm-eval's task objects, built with the shipped tokenizer. Raises ConfigError without lm-eval."""
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError:
        raise ConfigError("benchmark", "no package lm_eval", "after: pip install 'lcprobe[lmeval]'") from None
    from importlib import resources

    tasks = {}
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
            tasks[name] = get_task_dict([name], manager)[name]
    return tasks
