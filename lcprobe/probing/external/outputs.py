"""What other harnesses said to exported samples, and the scores that follow from it.

Read: lm-eval's sample files (`--log_samples`; by likelihood, greedy, or both), inspect_ai's logs as JSON, and JSON
lines {id, output}. A greedy text is put after its prompt and encoded again: the answer is exact where its tokens are
the answer's, as in our own scoring. A likelihood has no text: then exact match is lm-eval's `is_greedy`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcprobe.errors import DataError, shown
from lcprobe.json_lines import json_rows, parse_json, read_text
from lcprobe.probing.external.export import OF_THE_SCORE, Sample
from lcprobe.probing.substring import substring_score
from lcprobe.records import Record
from lcprobe.tasks.text.tokenizer import Tokenizer

KINDS = "lm-eval's samples (--log_samples), an inspect_ai log as JSON, or JSON lines with id and output"
INSPECT = "a log of inspect_ai as JSON (inspect log convert --to json)"
ROUNDING = 1e-6
"""Nats by which the log-likelihood of a certain answer may come out above 0."""


@dataclass(frozen=True)
class Output:
    """What is known of the answer to one sample. text: greedy, after the prompt. greedy: whether decoding gives the
    answer. harness: that said it."""

    harness: str
    text: str | None = None
    log_likelihood: float | None = None
    greedy: bool | None = None


def read_outputs(files: Iterable[Path]) -> dict[str, Output]:
    """Outputs by the sample's id; those of several files together. Raises DataError, naming file and line, for a file
    of none of the kinds and for two different outputs to one sample."""
    found: dict[str, Output] = {}
    for path in files:
        for number, key, output in _entries(path):
            known = found.get(key)
            found[key] = output if known is None else _both(known, output, f"{path}:{number}", key)
    return found


def score_of(sample: Sample, output: Output, tokenizer: Tokenizer) -> dict[str, Any]:
    """The columns of a record that follow from an output; null where they do not."""
    scores: dict[str, Any] = dict.fromkeys(OF_THE_SCORE)
    scores |= {"log_likelihood": output.log_likelihood, "exact": output.greedy}
    if output.text is not None:
        scores |= _of_text(sample, output.text, tokenizer)
        if output.greedy is not None:  # of the tokens themselves, not of a text encoded again
            scores["exact"] = output.greedy
    elif output.greedy:
        scores |= {
            "first_token": True,
            "token_accuracy": 1.0,
            "distractor_hit": False,
            "prediction": sample.answer,
        }
    return scores | {"scoring": "external", "status": "ok", "batch": 1}


def missing_score() -> dict[str, Any]:
    """The columns of a sample without output, which is no trial."""
    return dict.fromkeys(OF_THE_SCORE) | {"scoring": "external", "status": "missing", "batch": 0}


def read_samples(path: Path) -> list[Sample]:
    """The samples of one exported file. Raises DataError naming the line."""
    try:
        return [Sample(**row) for _, row in json_rows(path, KINDS)]
    except TypeError:
        raise DataError(
            f"{path}: not a file of exported samples; allowed: samples/*.jsonl of lcprobe export"
        ) from None


def record_from(sample: Sample, scores: Mapping[str, Any], model: Mapping[str, Any]) -> Record:
    """A row of the store."""
    return {**model, **sample.factors, **scores}


def _of_text(sample: Sample, text: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Scores of a greedy text. Harnesses may have taken white space off its beginning: the answer's is put back."""
    space = sample.target[: len(sample.target) - len(sample.target.lstrip())]
    said = text if text[:1].isspace() else space + text
    start = len(tokenizer.encode(sample.prompt))
    right = tokenizer.encode(sample.prompt + sample.target)[start:].tolist()
    ids = tokenizer.encode(sample.prompt + said)[start:].tolist()[: len(right)]
    hits = [a == b for a, b in zip(ids, right, strict=False)] + [False] * (len(right) - len(ids))
    solid = [hit for hit, token in zip(hits, right, strict=True) if not tokenizer.is_blank[token]]
    exact = all(hits)
    others = [other for other in sample.candidates[1:] if said.strip().startswith(other)]
    return {
        "exact": exact,
        "first_token": bool(solid and solid[0]),
        "token_accuracy": sum(hits) / len(hits),
        "distractor_hit": not exact and bool(others),
        "prediction": tokenizer.text_of(tokenizer.encode(sample.prompt + said)[start : start + len(right)]).strip(),
        "continuation": text,
        "substring": substring_score(text, sample.references, "all"),
    }


def _entries(path: Path) -> Iterator[tuple[int, str, Output]]:
    if path.suffix == ".json":
        yield from _inspect(path)
        return
    for number, row in json_rows(path, KINDS):
        at = f"{path}:{number}"
        document = row.get("doc")
        if isinstance(document, dict) and "resps" in row:
            yield number, _id(document, at), _harness(row, at)
        elif "output" in row and isinstance(row["output"], str):
            yield number, _id(row, at), Output("jsonl", row["output"])
        else:
            raise DataError(f"{at}: not an output; allowed: {KINDS}")


def _id(row: Mapping[str, Any], at: str) -> str:
    if not isinstance(row.get("id"), str):
        raise DataError(f"{at}: no id; allowed: outputs to samples of lcprobe export")
    return row["id"]


def _harness(row: Mapping[str, Any], at: str) -> Output:
    """A text, or log-likelihood and whether it is greedy, which lm-eval writes as texts."""
    said = row["resps"]
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    if isinstance(said, str):
        return Output("lm_eval", said)
    try:
        likelihood, greedy = said
        value, is_greedy = float(likelihood), {"True": True, "False": False}[str(greedy)]
    except (TypeError, ValueError, OverflowError, KeyError):
        raise DataError(
            f"{at}: a response that is neither; allowed: a text, or log-likelihood and is_greedy"
        ) from None
    if not math.isfinite(value) or value > ROUNDING:
        raise DataError(f"{at}: given {shown(likelihood)} as log-likelihood; allowed: a number <= 0")
    return Output("lm_eval", None, value, is_greedy)


def _inspect(path: Path) -> Iterator[tuple[int, str, Output]]:
    try:
        log = parse_json(read_text(path, INSPECT))
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error}); allowed: {INSPECT}") from None
    samples = log.get("samples") if isinstance(log, dict) else None
    if not isinstance(samples, list):
        raise DataError(f"{path}: no samples; allowed: {INSPECT}")
    for number, sample in enumerate(samples, 1):
        at = f"{path}: sample {number}"
        if not isinstance(sample, dict):
            raise DataError(f"{at}: given {shown(sample)}; allowed: {INSPECT}")
        text = _completion(sample.get("output"), at)
        if text is not None:
            yield number, _id(sample, at), Output("inspect_ai", text)


def _completion(output: Any, at: str) -> str | None:
    """The text of a model's output: of its first choice, in one part or several, of which those that are no text
    (reasoning, pictures) do not count. None for a sample that failed, which has no choice. Raises DataError for what
    is no output of inspect_ai."""
    choices = output.get("choices") if isinstance(output, dict) else output
    if choices is None or choices == []:
        return None
    first = choices[0] if isinstance(choices, list) else None
    message = first.get("message") if isinstance(first, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    parts = content if isinstance(content, list) else [{"text": content}]
    given = [part.get("text", "") if isinstance(part, dict) else None for part in parts]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise DataError(f"{at}: given output {shown(output)}; allowed: a choice with a message whose content is text")
    return "".join(texts)


def _both(known: Output, new: Output, at: str, key: str) -> Output:
    """What two files say of one sample."""
    for name in ("text", "log_likelihood", "greedy"):
        a, b = getattr(known, name), getattr(new, name)
        if a is not None and b is not None and a != b:
            raise DataError(f"{at}: another output to {key} than before it; allowed: one model's outputs")
    return replace(
        known,
        text=new.text if known.text is None else known.text,
        log_likelihood=new.log_likelihood if known.log_likelihood is None else known.log_likelihood,
        greedy=new.greedy if known.greedy is None else known.greedy,
    )
