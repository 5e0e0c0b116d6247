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

from lcprobe.errors import DataError, shown

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
        raise DataError(f"{path}: no prompt; allowed: JSON lines of RULER (input, outputs) or BABILong (input, question, target)")
    babilong = "question" in rows[0][1] and "outputs" not in rows[0][1]
    made = tuple((_babilong if babilong else _ruler)(row, number, f"{path}:{number}") for number, row in rows)
    return FrozenFile(path, "BABILong" if babilong else "RULER", _task_of(path), made)


def substring_score(prediction: str, outputs: Sequence[str], rule: Rule) -> float:
    """RULER's score of one prediction (scripts/eval/synthetic/constants.py), 0 .. 1: references found anywhere in it, case
    apart. all: their share (string_match_all); part: 1 if any is (string_match_part)."""
    said = re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip().lower()
    found = [reference.lower() in said for reference in outputs]
    return sum(found) / len(found) if rule == "all" else float(any(found))


TITLES = "".join(rf"(?<!\b{word})" for word in ("Dr", "Mr", "Mrs", "Ms", "St", "Jr", "Sr", "Lt", "Col", "Gen", "Rev", "No", "vs"))


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
