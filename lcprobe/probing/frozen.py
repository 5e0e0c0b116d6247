"""Frozen prompts: RULER's and BABILong's JSONL files, read unchanged, and two ways to score a model's answers.

RULER (NVIDIA/RULER, arXiv 2404.06654), a line: {index, input, outputs, length, answer_prefix}; the prompt is input
and then answer_prefix. BABILong (booydar/babilong, arXiv 2406.10149), a line: {input, question, target}; the prompt
is its published template without instruction and examples. Every byte is kept, even a space at the end, as in RULER's
variable tracking: a byte-pair model has rarely seen a space token before a word, so that column may be low for
reasons other than retrieval. In our columns the space belongs to the answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lcprobe.errors import DataError, shown
from lcprobe.json_lines import json_rows
from lcprobe.probing.engines.contract import Continuations
from lcprobe.probing.substring import BUDGETS, DEFAULT_BUDGET, Rule, substring_score
from lcprobe.tasks.text.tokenizer import Tokenizer

BABILONG = "<context>\n{input}\n</context>\nQuestion: {question}"
CONJUNCTIONS = {"and", "or"}
"""Words that do not count against precision."""


@dataclass(frozen=True)
class Prompt:
    """One line of a file. outputs: the references, as written."""

    line: int
    text: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class FrozenFile:
    """A file of prompts. task: a key of BUDGETS, or None where the name has none."""

    path: Path
    kind: Literal["RULER", "BABILong"]
    task: str | None
    prompts: tuple[Prompt, ...]

    @property
    def tokens(self) -> int:
        """The number of greedy tokens that is published with the task."""
        return BUDGETS[self.task] if self.task else DEFAULT_BUDGET

    @property
    def rule(self) -> Rule:
        """The rule that RULER uses for the task."""
        return "part" if self.task == "qa" else "all"


def read_frozen(path: Path) -> FrozenFile:
    """Read and check a whole file. Raises DataError naming the file and the line."""
    rows = list(json_rows(path))
    if not rows:
        raise DataError(
            f"{path}: no prompt; allowed: JSON lines of RULER (input, outputs) or BABILong (input, question, target)"
        )
    babilong = "question" in rows[0][1] and "outputs" not in rows[0][1]
    parse = _babilong if babilong else _ruler
    prompts = tuple(parse(row, number, f"{path}:{number}") for number, row in rows)
    return FrozenFile(path, "BABILong" if babilong else "RULER", _task_of(path), prompts)


NO_TITLE_BEFORE = "".join(
    rf"(?<!\b{word})" for word in ("Dr", "Mr", "Mrs", "Ms", "St", "Jr", "Sr", "Lt", "Col", "Gen", "Rev", "No", "vs")
)


def first_answer(prediction: str) -> str:
    """The text before the first line break or full stop; list numbers, initials and titles do not end a sentence."""
    text = re.sub(r"(?:^|(?<=\s))\d{1,2}\.\s+(?=\S)", "", prediction.strip())
    return re.split(rf"\n|(?<!\b[A-Z]){NO_TITLE_BEFORE}\.(?=\s|$)", text, maxsplit=1)[0].strip()


def recall_and_precision(prediction: str, outputs: Sequence[str], rule: Rule) -> tuple[float, float]:
    """Recall and precision of the first answer, in whole words, ignoring case: references that it contains (all:
    their share; part: any), and the share of its words that belong to a reference. Listing everything costs
    precision.
    """
    answer = _words(first_answer(prediction))
    references = [_words(reference) for reference in outputs]
    named = [any(answer[i : i + len(r)] == r for i in range(len(answer) - len(r) + 1)) for r in references]
    known = {word for reference in references for word in reference}
    counted = [word for word in answer if word in known or word not in CONJUNCTIONS]
    recall = sum(named) / len(named) if rule == "all" else float(any(named))
    return recall, sum(word in known for word in counted) / len(counted) if counted else 0.0


@dataclass(frozen=True)
class FrozenScore:
    """The scores of one prompt, as written to files. said: the output. ruler: RULER's substring score of the whole
    output, 0 .. 1. The others are ours. any_exact: teacher forced, the answer begins with any one of the references,
    as no order is required; weaker than RULER's where its rule is all. log_likelihood: of the first reference, nats.
    recall and precision: of the first answer. alone: both are 1.
    """

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
    file: FrozenFile, continuer: Continuations, tokenizer: Tokenizer, tokens: int, rule: Rule
) -> list[FrozenScore]:
    """Score every prompt of a file, none of them truncated. tokens: of the greedy output, fewer where the model ends
    the document.

    Raises EpisodeError past the model's max_length.
    """
    prompts = [with_begin(tokenizer, prompt.text) for prompt in file.prompts]
    end_ids = [tokenizer.bos_id]
    outputs = continuer.greedy(prompts, [tokens] * len(prompts), lambda _, ids: ids[-1] in end_ids)
    pairs = [_answer(tokenizer, prompt, output) for prompt in file.prompts for output in prompt.outputs]
    forced = iter(continuer.likelihoods(pairs))
    scores = []
    for prompt, ids, output in zip(file.prompts, prompts, outputs, strict=True):
        text = tokenizer.decode(np.array([i for i in output if i not in end_ids], dtype=np.int64))
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
    """Ids of a text after the begin token, if there is one; a text that starts with its own gets no second."""
    ids = tokenizer.encode(text).tolist()
    return ids if tokenizer.bos_id is None or ids[:1] == [tokenizer.bos_id] else [tokenizer.bos_id, *ids]


def _answer(tokenizer: Tokenizer, prompt: Prompt, output: str) -> tuple[list[int], list[int]]:
    """Prompt and answer, encoded as one text and split where the tokens differ from the prompt's: a final space goes
    to the answer.
    """
    text, gap = prompt.text, "" if prompt.text[-1].isspace() else " "
    whole, alone = with_begin(tokenizer, text + gap + output), with_begin(tokenizer, text)
    same = next(
        (i for i, (a, b) in enumerate(zip(whole, alone, strict=False)) if a != b), min(len(whole), len(alone))
    )
    return whole[:same], whole[same:]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[-'.]\w+)*", text.lower())


def _task_of(path: Path) -> str | None:
    """The task that is a word of the file's name, else of its folder's: RULER's files are <task>/validation.jsonl,
    and harnesses call the folder ruler_qa_1 or ruler-qa_1_4096. Of several words the first counts."""
    for name in (path.stem, path.parent.name):
        match = re.search(rf"(?<![a-z0-9])({'|'.join(BUDGETS)})(?![a-z])", name.lower())
        if match:
            return match.group(1)
    return None


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
