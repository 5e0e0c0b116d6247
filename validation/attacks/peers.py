"""The same attacks on RULER: lm-eval's six tasks that it builds offline, and RULER v2's public definitions.

Each of our policies has a counterpart of the same name, or the cell says why not; the learned attackers are the same.
Peers score the recall of the answers in everything that is printed within a task's budget of tokens (lm-eval: 128 for
needles, 30, 120 and 50; RULER v2 sets none), so an attacker prints what it thinks likely, most likely first, as much
as fits. Needs the extra `lmeval`; the numbers are lm-eval's, not RULER's.
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

from lcprobe.errors import ConfigError
from lcprobe.probing.policies.cheating import POLICIES, RECENT_PLACES, nearest_others
from lcprobe.probing.policies.observation import WORD, ObservedValue
from lcprobe.probing.units import stratum_centres
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.attacks import ruler_v2
from validation.attacks.learned import STRATA, Question, features_of, learned, named

NEEDLE = r" is: (\S+?)\.(?=\s)"
VALUES = {
    "niah_single_1": NEEDLE,
    "niah_multikey_2": NEEDLE,
    "niah_multikey_3": NEEDLE,
    "ruler_vt": r"VAR ([A-Z]+)",
    "ruler_cwe": r"\d+\. ([\w-]+)",
    "ruler_fwe": r"\b([a-z]{6})(?= )",
}
"""Patterns of the values in the text, by task of lm-eval."""
COUNTING = ("ruler_cwe", "ruler_fwe")
"""Tasks whose answer is the most frequent values."""


@dataclass(frozen=True)
class PeerTask:
    """Documents of one task at one length. values: those of each document, with repetitions; at: the characters where
    they stand; score: share of a document's answers that a printed text has; budget: tokens that are scored."""

    name: str
    texts: list[str]
    values: list[list[str]]
    at: list[list[int]]
    answers: list[Sequence[str]]
    score: Callable[[int, str], float]
    budget: int | None


@dataclass(frozen=True)
class Document:
    """The values of one document, in order of appearance with repetitions. wanted: how many the question asks for.
    answers, ranks, ranks_from_back: of other documents, the most frequent first; a rank is that of a value among the
    distinct ones. without: values that are no answer. familiar: how many of the other documents have each word;
    lines: the words of the line of each value's first occurrence; gaps: characters to the nearest other value; left:
    tokens from the question to the nominal length; sizes: tokens of each value.
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
    left: int
    sizes: Mapping[str, int]
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
    "rarest_in_text": lambda s: _first_by(s, lambda v: s.familiar[v]),
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
    "room_left": lambda s: _first_by(s, lambda v: abs(s.sizes[v] - s.left)),
}


NOT_APPLICABLE = {
    "same_question": "all questions have one wording",
    "nearest_to_a_depth": "all needles are at its depths",
}
"""Policies without a counterpart, and why."""


def peer_rows(n: int, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """One row per task and length, one column per attack: its accuracy over n documents, by the peer's metric."""
    tokenizer, rows = load_tokenizer(), []
    for length in lengths:
        for task in (*_lm_eval(length, 3 * n), *_ruler_v2(length, 3 * n, tokenizer)):
            rows.append(
                {"task": task.name, "length": length, "n": n, "budget": task.budget, **_row(task, n, tokenizer)}
            )
    return rows


def _row(task: PeerTask, n: int, tokenizer: Tokenizer) -> dict[str, str]:
    """Statistics and learned attackers come from the documents after the first n."""
    others = range(n, len(task.texts))
    answers, ranks, from_back, familiar = Counter[str](), Counter[int](), Counter[int](), Counter[str]()
    for i in others:
        distinct = list(dict.fromkeys(task.values[i]))
        answers.update(task.answers[i])
        ranks.update(distinct.index(v) for v in task.answers[i] if v in distinct)
        from_back.update(len(distinct) - 1 - distinct.index(v) for v in task.answers[i] if v in distinct)
        familiar.update(set(WORD.findall(task.texts[i])))
    counting = any(name in task.name for name in COUNTING)
    common = [[key for key, _ in counts.most_common()] for counts in (answers, ranks, from_back)]
    row = dict.fromkeys(name.replace("_", " ") for name in POLICIES)
    documents = [_document(task, i, common, familiar, tokenizer) for i in range(n)]
    for policy in POLICIES:
        if counting and policy.startswith("most_frequent"):
            row[policy.replace("_", " ")] = "the task"
        elif policy in NOT_APPLICABLE:
            row[policy.replace("_", " ")] = NOT_APPLICABLE[policy]
        else:
            printed = [PEER_POLICIES[policy](document) for document in documents]
            row[policy.replace("_", " ")] = _accuracy(task, printed, tokenizer)
    questions = [_question(task, i, familiar, answers, tokenizer) for i in range(len(task.texts))]
    for name, attacker in learned(questions[n:]).items():
        ranked = [named(attacker, q, Stream("peer", name, i), len(q.names)) for i, q in enumerate(questions[:n])]
        row[name] = f"{_accuracy(task, ranked, tokenizer)}{' (the task)' * counting}"
    return {name: cell or "" for name, cell in row.items()}


def _accuracy(task: PeerTask, printed: Sequence[Sequence[str]], tokenizer: Tokenizer) -> str:
    """The mean recall of what is printed, document by document."""
    texts = (", ".join(values) for values in printed)
    cut = (text if task.budget is None else tokenizer.decode(tokenizer.encode(text)[: task.budget]) for text in texts)
    return f"{np.mean([task.score(i, text) for i, text in enumerate(cut)]):.2f}"


def _document(
    task: PeerTask, i: int, common: list[list[Any]], familiar: Counter[str], tokenizer: Tokenizer
) -> Document:
    values, text = task.values[i], task.texts[i]
    return Document(
        values=values,
        wanted=len(task.answers[i]),
        answers=common[0],
        ranks=common[1],
        ranks_from_back=common[2],
        without=[v for v in values if v not in task.answers[i]],
        familiar=familiar,
        lines={v.text: v.line for v in _observed(task, i)},
        gaps=nearest_others(list(zip(task.at[i], values, strict=True)), len(text)),
        left=(task.budget or 0),
        sizes={v: len(tokenizer.encode(" " + v)) for v in dict.fromkeys(values)},
        rng=Stream("cheating peer", task.name, i),
    )


def _question(
    task: PeerTask, i: int, familiar: Counter[str], answers: Counter[str], tokenizer: Tokenizer
) -> Question:
    values = _observed(task, i)
    features = features_of(
        values,
        [len(tokenizer.encode(" " + v.text)) for v in values],
        left=task.budget or 0,
        size=len(task.texts[i]),
        familiar=[min((familiar[word] for word in v.line), default=0) for v in values],
        in_text=[familiar[v.text] for v in values],  # the only texts of theirs are other documents
        line_in_text=[min((familiar[word] for word in v.line), default=0) for v in values],
        prior=[answers[v.text] for v in values],
        earlier=set(),
    )
    right = np.array([v.text in task.answers[i] for v in values])
    return Question(tuple(v.text for v in values), features, right)


def _observed(task: PeerTask, i: int) -> list[ObservedValue]:
    """The distinct values of a document, in order of first appearance."""
    places: dict[str, list[int]] = {}
    for value, at in zip(task.values[i], task.at[i], strict=True):
        places.setdefault(value, []).append(at)
    text = task.texts[i]
    lines = {
        value: text[max(text.rfind(end, 0, at[0]) for end in (". ", "\n")) + 1 : at[0]]
        for value, at in places.items()
    }
    return [ObservedValue(value, tuple(at), tuple(WORD.findall(lines[value]))) for value, at in places.items()]


def _first_by(s: Document, key: Callable[[str], int]) -> list[str]:
    """The first values by a key, as many as the question asks for, equal ones in random order."""
    return sorted(_some(s.distinct, len(s.distinct), s.rng), key=key)[: s.wanted]


def _some(values: list[str], n: int, rng: Stream) -> list[str]:
    return [values[i] for i in rng.permutation(len(values))[:n]]


def _ruler_v2(length: int, n: int, tokenizer: Tokenizer) -> list[PeerTask]:
    tasks = []
    for name, definition in ruler_v2.TASKS.items():
        puzzles = ruler_v2.puzzles(name, length, n, tokenizer)
        pattern = ruler_v2.QUESTIONS if definition.copies else ruler_v2.NUMBERS
        found = [list(re.finditer(pattern, puzzle.text)) for puzzle in puzzles]
        tasks.append(
            PeerTask(
                f"RULER v2 {name}",
                [puzzle.text for puzzle in puzzles],
                [[match[1] for match in own] for own in found],
                [[match.start(1) for match in own] for own in found],
                [puzzle.answers for puzzle in puzzles],
                lambda i, printed, puzzles=puzzles: puzzles[i].score(printed),
                None,
            )
        )
    return tasks


def _lm_eval(length: int, n: int) -> list[PeerTask]:
    """lm-eval's tasks, built with the shipped tokenizer. Raises ConfigError without lm-eval."""
    try:
        from lm_eval.tasks import TaskManager, get_task_dict
    except ImportError:
        raise ConfigError("validation", "no package lm_eval", "after: pip install 'lcprobe[lmeval]'") from None
    from importlib import resources

    tasks = []
    with tempfile.TemporaryDirectory() as folder:
        text = (resources.files("lcprobe.tasks") / "assets" / "bpe4k.json").read_text(encoding="utf-8")
        (Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")
        (Path(folder) / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
        )
        metadata: dict[str, Any] = {"max_seq_lengths": [length], "tokenizer": folder}
        manager = TaskManager(metadata=metadata)
        for name, pattern in VALUES.items():
            random.seed(0)  # its generators draw from the global streams
            np.random.seed(0)
            task: Any = get_task_dict([name], manager)[name]
            docs = list(task.eval_docs)[:n]
            found = [list(re.finditer(pattern, doc["input"])) for doc in docs]
            tasks.append(
                PeerTask(
                    f"lm-eval {version('lm_eval')} {name}",
                    [doc["input"] for doc in docs],
                    [[match[1] for match in own] for own in found],
                    [[match.start(1) for match in own] for own in found],
                    [doc["outputs"] for doc in docs],
                    lambda i, printed, task=task, docs=docs: _lm_eval_score(task, docs[i], printed),
                    int(task.config.generation_kwargs["max_gen_toks"]),
                )
            )
    return tasks


def _lm_eval_score(task: Any, doc: dict[str, Any], printed: str) -> float:
    return next(v for v in task.process_results(doc, [printed]).values() if v >= 0)  # the other lengths are -1
