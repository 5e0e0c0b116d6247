"""Frozen prompts: RULER's and BABILong's JSONL files, read as they are, and two ways to score what a model says to them.

RULER (NVIDIA/RULER, arXiv 2404.06654), a line: {index, input, outputs, length, answer_prefix}; the prompt is input and then
answer_prefix. BABILong (booydar/babilong, arXiv 2406.10149), a line: {input, question, target}; the prompt is its published
template without instruction and examples. Every byte is kept, and so is a space at the end, which RULER's variable tracking
has: a byte-pair model seldom saw a lone space before a word, so that column may be low for a reason that is no retrieval.
In our columns the space belongs to the answer.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lcprobe.errors import DataError, shown
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.tasks.text.tokenizer import Tokenizer

BUDGETS = {"niah": 128, "vt": 30, "cwe": 120, "fwe": 50, "qa": 32}
"""RULER's greedy tokens by task."""
OTHER_BUDGET = 128
Rule = Literal["all", "part"]
BABILONG = "<context>\n{input}\n</context>\nQuestion: {question}"
LINKS = {"and", "or"}


@dataclass(frozen=True)
class Prompt:
    """One line of a file. outputs: the references, as written."""

    line: int
    text: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class FrozenFile:
    """A file of prompts. task: a key of BUDGETS, or None where the name tells nothing."""

    path: Path
    kind: Literal["RULER", "BABILong"]
    task: str | None
    prompts: tuple[Prompt, ...]

    @property
    def tokens(self) -> int:
        """Greedy tokens that the task is published with."""
        return BUDGETS[self.task] if self.task else OTHER_BUDGET

    @property
    def rule(self) -> Rule:
        """RULER's rule for the task."""
        return "part" if self.task == "qa" else "all"


def read_frozen(path: Path) -> FrozenFile:
    """Read and check a whole file. Raises DataError naming the file and the line."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a byte at {error.start} that is not UTF-8; allowed: JSON lines") from None
    rows = [(number, _row(line, f"{path}:{number}")) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(
            f"{path}: no prompt; allowed: JSON lines of RULER (input, outputs) or BABILong (input, question, target)"
        )
    babilong = "question" in rows[0][1] and "outputs" not in rows[0][1]
    made = tuple((_babilong if babilong else _ruler)(row, number, f"{path}:{number}") for number, row in rows)
    return FrozenFile(path, "BABILong" if babilong else "RULER", _task_of(path), made)


def substring_score(prediction: str, outputs: Sequence[str], rule: Rule) -> float:
    """RULER's score of one prediction (scripts/eval/synthetic/constants.py), 0 .. 1: references found anywhere in it, case
    apart. all: their share (string_match_all); part: 1 if any is (string_match_part)."""
    said = re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip().lower()
    found = [reference.lower() in said for reference in outputs]
    return sum(found) / len(found) if rule == "all" else float(any(found))


TITLES = "".join(
    rf"(?<!\b{word})" for word in ("Dr", "Mr", "Mrs", "Ms", "St", "Jr", "Sr", "Lt", "Col", "Gen", "Rev", "No", "vs")
)


def first_answer(prediction: str) -> str:
    """What is said before the first line break or full stop; numbers of a list, initials and titles do not end a sentence."""
    text = re.sub(r"(?:^|(?<=\s))\d{1,2}\.\s+(?=\S)", "", prediction.strip())
    return re.split(rf"\n|(?<!\b[A-Z]){TITLES}\.(?=\s|$)", text, maxsplit=1)[0].strip()


def recall_and_precision(prediction: str, outputs: Sequence[str], rule: Rule) -> tuple[float, float]:
    """Of the first answer, in whole words, case apart: references that it names (all: their share; part: any), and the share
    of its words that belong to a reference. Naming everything costs precision."""
    said = _words(first_answer(prediction))
    wanted = [_words(reference) for reference in outputs]
    named = [any(said[i : i + len(w)] == w for i in range(len(said) - len(w) + 1)) for w in wanted]
    known = {word for w in wanted for word in w}
    counted = [word for word in said if word in known or word not in LINKS]
    recall = sum(named) / len(named) if rule == "all" else float(any(named))
    return recall, sum(word in known for word in counted) / len(counted) if counted else 0.0


@dataclass(frozen=True)
class FrozenScore:
    """One prompt. ruler: RULER's substring score, 0 .. 1, of everything said. The rest is ours: any_exact, teacher forced, the
    answer begins with a reference: with any one of them, as no order is asked for, and so a weaker thing than RULER's where
    its rule wants all; log_likelihood of the first reference, nats; recall and precision of the first answer; alone: both
    are 1."""

    line: int
    prompt_tokens: int
    said: str
    first_answer: str
    ruler: float
    any_exact: bool
    log_likelihood: float
    recall: float
    precision: float
    alone: bool


def score_frozen(
    file: FrozenFile, continuer: Continuer, tokenizer: Tokenizer, tokens: int, rule: Rule
) -> list[FrozenScore]:
    """Score every prompt of a file, none of them cut. tokens: greedy ones, fewer where the model ends the document.

    Raises EpisodeError past the model's max_length.
    """
    prompts = [with_begin(tokenizer, prompt.text) for prompt in file.prompts]
    ended = [tokenizer.bos_id]
    said = continuer.greedy(prompts, [tokens] * len(prompts), lambda _, ids: ids[-1] in ended)
    pairs = [_answer(tokenizer, prompt, output) for prompt in file.prompts for output in prompt.outputs]
    forced = iter(continuer.likelihoods(pairs))
    scores = []
    for prompt, ids, made in zip(file.prompts, prompts, said, strict=True):
        text = tokenizer.decode(np.array([i for i in made if i not in ended], dtype=np.int64))
        answers = [next(forced) for _ in prompt.outputs]
        recall, precision = recall_and_precision(text, prompt.outputs, rule)
        scores.append(
            FrozenScore(
                line=prompt.line,
                prompt_tokens=len(ids),
                said=text,
                first_answer=first_answer(text),
                ruler=substring_score(text, prompt.outputs, rule),
                any_exact=any(bool(right.all()) for _, right in answers),
                log_likelihood=float(answers[0][0].sum()),
                recall=recall,
                precision=precision,
                alone=recall == precision == 1,
            )
        )
    return scores


def with_begin(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text after the begin token, where there is one; a text that brings its own gets no second."""
    ids = tokenizer.encode(text).tolist()
    return ids if tokenizer.bos_id is None or ids[:1] == [tokenizer.bos_id] else [tokenizer.bos_id, *ids]


def _answer(tokenizer: Tokenizer, prompt: Prompt, output: str) -> tuple[list[int], list[int]]:
    """Prompt and answer as one text, parted where their tokens leave the prompt's own: a last space goes to the answer."""
    text, gap = prompt.text, "" if prompt.text[-1].isspace() else " "
    whole, alone = with_begin(tokenizer, text + gap + output), with_begin(tokenizer, text)
    same = next(
        (i for i, (a, b) in enumerate(zip(whole, alone, strict=False)) if a != b), min(len(whole), len(alone))
    )
    return whole[:same], whole[same:]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[-'.]\w+)*", text.lower())


def _task_of(path: Path) -> str | None:
    """RULER keeps its files as <task>/validation.jsonl; the file's own name goes first."""
    for name in (path.stem, path.parent.name):
        found = re.match(rf"({'|'.join(BUDGETS)})(?![a-z])", name.lower())
        if found:
            return found.group(1)
    return None


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: no JSON ({error}); allowed: one JSON object a line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: given {shown(row)}; allowed: one JSON object a line")
    return row


def _ruler(row: dict[str, Any], line: int, where: str) -> Prompt:
    text, prefix = _text(row, "input", where), row.get("answer_prefix") or ""
    outputs = row.get("outputs")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(outputs, list) or not outputs or not all(isinstance(o, str) and o.strip() for o in outputs):
        raise DataError(f"{where}: outputs: given {shown(row.get('outputs', 'nothing'))}; allowed: a list of texts")
    return Prompt(line, _with_prefix(text, prefix, where), tuple(outputs))


def _babilong(row: dict[str, Any], line: int, where: str) -> Prompt:
    text = BABILONG.format(input=_text(row, "input", where), question=_text(row, "question", where))
    return Prompt(line, _with_prefix(text, row.get("answer_prefix") or "", where), (_text(row, "target", where),))


def _with_prefix(text: str, prefix: object, where: str) -> str:
    if not isinstance(prefix, str):
        raise DataError(f"{where}: answer_prefix: given {shown(prefix)}; allowed: text")
    return text if text.endswith(prefix) else text + prefix


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {name}: given {shown(value) if name in row else 'nothing'}; allowed: text")
    return value
