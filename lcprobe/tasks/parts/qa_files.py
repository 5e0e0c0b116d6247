"""Questions from files: SQuAD (v1.1, v2) and HotpotQA (distractor) JSON, or the same data sets from the hub when
online.

    squad    {"data": [{"paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": [...]}]}]}]},
             an answer: {"text": ..., "answer_start": ...}
    hotpot   [{"question": ..., "answer": ..., "supporting_facts": [[title, n], ...],
               "context": [[title, [sentence, ...]], ...]}]

Rajpurkar et al. 2016, 2018 (arXiv 1606.05250, 1806.03822); Yang et al. 2018 (arXiv 1809.09600).
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from lcprobe.errors import ConfigError, DataError
from lcprobe.files import digest_bytes, digest_json
from lcprobe.hub import hub_error, hub_is_unreachable, without_retries

FILE_FORMATS = {"squad": "SQuAD JSON (v1.1 or v2)", "hotpot": "HotpotQA distractor JSON"}


class Entry(NamedTuple):
    """One question. gold: the paragraphs that are needed, the one with the answer first. documents: the names of
    their documents. nth: which occurrence of the answer in gold[0] is meant.
    """

    question: str
    answer: str
    gold: tuple[str, ...]
    documents: tuple[str, ...]
    nth: int = 0


def read_entries(source: str, path: str) -> tuple[list[Entry], str]:
    """Every answerable question of a file, its first reference as the answer, and a digest of what was read.

    Raises ConfigError without such a file, DataError naming the file and the first field that is not in the format.
    """
    if path.startswith("hf:") and path.split(":")[1].strip():
        rows = _hub_rows(path)
        return [*_hub_entries(source, rows, path)], digest_json([path, len(rows)])
    if not Path(path).is_file():
        raise ConfigError("path", path, f"an existing {FILE_FORMATS[source]} file, or hf:name[:config] when online")
    raw = Path(path).read_bytes()
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise DataError(
            f"{path}: not JSON ({' '.join(str(error).split())}); allowed: {FILE_FORMATS[source]}"
        ) from None
    entries = _squad(content, path) if source == "squad" else _hotpot(content, path)
    return [*entries], digest_bytes(raw)


def _squad(content: Any, path: str) -> Iterator[Entry]:
    form = FILE_FORMATS["squad"]
    for a, article in enumerate(_field(content, "data", list, path, "the file", form)):
        paragraphs = _field(article, "paragraphs", list, path, f"data[{a}]", form)
        document = str(article.get("title", a))
        for p, paragraph in enumerate(paragraphs):
            at = f"data[{a}].paragraphs[{p}]"
            context = _field(paragraph, "context", str, path, at, form)
            for q, row in enumerate(_field(paragraph, "qas", list, path, at, form)):
                here = f"{at}.qas[{q}]"
                question, answers = (
                    _field(row, n, k, path, here, form) for n, k in (("question", str), ("answers", list))
                )
                if answers:  # version 2 has questions without
                    text = _field(answers[0], "text", str, path, f"{here}.answers[0]", form)
                    start = _field(answers[0], "answer_start", int, path, f"{here}.answers[0]", form)
                    yield _one_paragraph(question, text, context, start, document)


def _one_paragraph(question: str, text: str, context: str, start: int, document: str) -> Entry:
    answer = _plain(text)
    before = _plain(context[: max(start, 0)])
    return Entry(_plain(question), answer, (_plain(context),), (document,), before.count(answer) if answer else 0)


def _hotpot(content: Any, path: str) -> Iterator[Entry]:
    form = FILE_FORMATS["hotpot"]
    if not isinstance(content, list):
        raise DataError(f"{path}: the file is no list; allowed: {form}")
    for number, row in enumerate(content):
        at = f"[{number}]"
        question, answer = (_field(row, name, str, path, at, form) for name in ("question", "answer"))
        facts, context = (_field(row, name, list, path, at, form) for name in ("supporting_facts", "context"))
        try:
            titles = {str(title) for title, _ in facts}
            paragraphs = [(str(title), "".join(sentences)) for title, sentences in context]
        except (TypeError, ValueError):
            raise DataError(
                f"{path}: {at} has 'supporting_facts' or 'context' that are no pairs; allowed: {form}"
            ) from None
        yield from _several(question, answer, titles, paragraphs)


def _several(question: str, answer: str, titles: set[str], paragraphs: list[tuple[str, str]]) -> Iterator[Entry]:
    """The question, if exactly one of its paragraphs has the answer ("yes", "no" and ambiguous ones are left out)."""
    answer = _plain(answer)
    gold = [_plain(f"{title}: {text}") for title, text in paragraphs if title in titles]
    has = [text for text in gold if answer and answer in text]
    if len(has) == 1:
        yield Entry(
            _plain(question), answer, (has[0], *(text for text in gold if text != has[0])), tuple(sorted(titles))
        )


def _hub_rows(path: str) -> list[dict[str, Any]]:
    """The rows of `hf:name[:config]`. Raises ServerError where network or hub do not give them now, DataError where
    there are none."""
    import datasets

    name, _, config = path.removeprefix("hf:").partition(":")
    allowed, why = "allowed: an online data set or a local file", hub_is_unreachable()
    try:
        with without_retries() if why else nullcontext():
            rows: Any = datasets.load_dataset(name, config or None, split="validation")
            return list(rows)
    except Exception as error:  # network, hub and script errors have no common base
        reason = why or f"not reachable ({type(error).__name__})"
        raise hub_error(f"{path}: {reason}; {allowed}", None if why else error, DataError) from None


def _hub_entries(source: str, rows: list[dict[str, Any]], path: str) -> Iterator[Entry]:
    """Rows of the hub's `squad`, `squad_v2` and `hotpot_qa`, which have columns where the files have lists."""
    try:
        for row in rows:
            if source == "squad":
                texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
                if texts:
                    yield _one_paragraph(row["question"], texts[0], row["context"], int(starts[0]), str(row["title"]))
            else:
                context = row["context"]
                paragraphs = [(t, "".join(s)) for t, s in zip(context["title"], context["sentences"], strict=True)]
                yield from _several(row["question"], row["answer"], set(row["supporting_facts"]["title"]), paragraphs)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: rows are not as `{source}` ({error}); allowed: the columns of {FILE_FORMATS[source]}"
        ) from None


def _field(row: Any, name: str, kind: type, path: str, where: str, form: str) -> Any:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        noun = {str: "text", list: "list", int: "number"}[kind]
        raise DataError(f"{path}: {where} has no {noun} {name!r}; allowed: {form}")
    return value


def _plain(text: str) -> str:
    """The text with single spaces for white space, so that paragraphs join like words."""
    return " ".join(text.split())
