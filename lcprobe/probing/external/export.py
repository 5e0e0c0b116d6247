"""Our tasks for other harnesses: a grid as JSON lines, as lm-eval tasks and as an inspect_ai task.

    export.json                 what the samples are: settings, cells, and the facts that records of them depend on
    samples/<unit>.jsonl        id, prompt, target, answer, token counts, candidates, and every factor
    lm_eval/*.yaml, utils.py    two tasks for each unit, `likelihood` and `greedy`, and a tag for all of each kind
    inspect_ai/tasks.py         one task over all samples

`prompt` and `target` are the text of the ids: encoded together they are the episode's, which is checked for every
sample, so that the token counts and spans hold for a harness with this tokenizer. A prompt ends before the space of
its answer, and `target` begins with it. BOS is the harness's to add, unless `bos` puts its text before every prompt.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.files import write_atomic
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import ProbedCheckpoint, UnitItem, record_of, unit_items
from lcprobe.probing.units import Unit
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.text.tokenizer import Tokenizer

KINDS = ("likelihood", "greedy")
"""What lm-eval is asked: the log-likelihood of the answer and whether it is greedy, or a greedy text."""
OF_THE_MODEL = ("model", "checkpoint", "step", "tokens", "engine", "extension", "factor")
"""Columns of a record that are not known before a model is."""
OF_THE_SCORE = (
    "exact", "first_token", "token_accuracy", "log_likelihood", "rank", "distractor_hit", "prediction",
    "continuation", "substring", "read_tokens", "scoring", "status", "batch",
)  # fmt: skip
"""Columns that are not known before it is scored."""
NOBODY = ProbedCheckpoint("", "", 0, 0)


@dataclass(frozen=True)
class Sample:
    """One question as text. factors: the columns of its record that are known before a model answers."""

    id: str
    prompt: str
    target: str
    answer: str
    prompt_tokens: int
    answer_tokens: int
    candidates: list[str]
    references: list[str]
    factors: dict[str, Any]


def samples_of(unit: Unit, tasks: TaskSet, bos: bool) -> list[Sample]:
    """The questions of a unit. bos: begin prompts with its text. Raises NotMade where one cannot be made,
    EpisodeError where the tokenizer does not give back the ids of a text."""
    return [_sample(item, tasks, bos) for item in unit_items(unit_name(unit), unit, tasks)]


def unit_name(unit: Unit) -> str:
    """`multikey-corpus-words-numbers-512`: a name that files and tasks can have."""
    formats = [level for level in (unit.formats.haystack, unit.formats.key, unit.formats.value) if level != NOTHING]
    control = [] if unit.control == "none" else [unit.control]
    return re.sub(r"[^A-Za-z0-9._-]", "_", "-".join([unit.task, *formats, str(unit.length), *control]))


def write_samples(folder: Path, unit: Unit, samples: Sequence[Sample]) -> Path:
    """One JSON object a line."""
    path = folder / "samples" / f"{unit_name(unit)}.jsonl"
    lines = (json.dumps(vars(sample), ensure_ascii=False) for sample in samples)
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return path


def write_harness_tasks(folder: Path, study: str, budgets: Mapping[Unit, int]) -> list[str]:
    """Tasks for lm-eval's TaskManager(include_path=folder / "lm_eval"); returns their tags, one of each kind.
    budgets: greedy tokens of each unit."""
    place, prefix = folder / "lm_eval", re.sub(r"[^A-Za-z0-9._-]", "_", study)
    write_atomic(place / "utils.py", _resource("lm_eval_utils.py.txt"))
    tags = [f"lcprobe_{prefix}_{kind}" for kind in KINDS]
    for unit, tokens in budgets.items():
        for kind, tag in zip(KINDS, tags, strict=True):
            name = f"{tag}_{unit_name(unit)}"
            write_atomic(place / f"{name}.yaml", "\n".join(_task_yaml(name, tag, kind, unit, tokens)) + "\n")
    return tags


def write_inspect(folder: Path, study: str, tokens: int) -> Path:
    """A file with an inspect_ai task over all samples. tokens: of an output."""
    text = _resource("inspect_task.py.txt")
    name = "lcprobe_" + re.sub(r"\W", "_", study)
    path = folder / "inspect_ai" / "tasks.py"
    write_atomic(path, text.replace("TASK_NAME", name).replace("MAX_TOKENS", str(tokens)))
    return path


def budget(unit: Unit, tasks: TaskSet, samples: Sequence[Sample]) -> int:
    """Greedy tokens of an output: those of `probe.continuation`, or of the longest answer."""
    return max(tasks.continuation_tokens(unit.task), *(sample.answer_tokens for sample in samples))


def _resource(name: str) -> str:
    return resources.files("lcprobe.probing.external").joinpath(name).read_text(encoding="utf-8")


def _task_yaml(name: str, tag: str, kind: str, unit: Unit, tokens: int) -> Iterator[str]:
    yield f"# {unit.label}, written by lcprobe export"
    yield f"task: {json.dumps(name)}"
    yield f"tag: [{json.dumps(tag)}]"
    yield 'dataset_path: ""'
    yield "custom_dataset: !function utils.dataset"
    yield f"dataset_kwargs: {{file: {json.dumps(unit_name(unit) + '.jsonl')}}}"
    yield "test_split: test"
    yield "num_fewshot: 0"
    yield "doc_to_text: prompt"
    yield "doc_to_target: target"
    yield 'target_delimiter: ""'
    if kind == "likelihood":
        yield "output_type: loglikelihood"
        yield "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"
    else:
        yield "output_type: generate_until"
        yield f"generation_kwargs: {{until: [], max_gen_toks: {tokens}, do_sample: false}}"
        yield "process_results: !function utils.greedy"
        yield "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]"
    yield "metadata: {version: 1.0}"


def _sample(one: UnitItem, tasks: TaskSet, bos: bool) -> Sample:
    item, tokenizer = one.item, tasks.tokenizer
    query, ids = item.query, item.episode.sequence(item.query)
    first = 0 if tokenizer.bos_id is None else 1
    prompt, target = _texts(ids[first:], query.start - first, tokenizer, one.unit)
    if bos and tokenizer.bos_id is not None:
        prompt = tokenizer.decode(ids[:1]) + prompt
    record = record_of(one, tasks, None, NOBODY, "external", 0)
    factors = {name: value for name, value in record.items() if name not in (*OF_THE_MODEL, *OF_THE_SCORE, "unit")}
    return Sample(
        id=f"{one.name}/{record['depth']:g}/{record['index']}/{record['query']}",
        prompt=prompt,
        target=target,
        answer=target.strip(),
        prompt_tokens=query.start,
        answer_tokens=query.stop - query.start,
        candidates=[tokenizer.text_of(candidate).strip() for candidate in query.candidates],
        references=list(tasks.by_name[one.unit.task].references(query.answer)),
        factors=factors,
    )


def _texts(ids: np.ndarray, start: int, tokenizer: Tokenizer, unit: Unit) -> tuple[str, str]:
    """Prompt and answer as texts whose ids are these, together and the prompt alone."""
    prompt, whole = tokenizer.decode(ids[:start]), tokenizer.decode(ids)
    same = whole.startswith(prompt) and np.array_equal(tokenizer.encode(prompt), ids[:start])
    if not same or not np.array_equal(tokenizer.encode(whole), ids):
        raise EpisodeError("data.tokenizer", f"one whose ids of {unit.label} are not those of a text", "another one")
    return prompt, whole[len(prompt) :]
