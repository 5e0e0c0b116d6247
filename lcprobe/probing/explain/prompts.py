"""The samples that a protocol reads: ours, built anew with one thing changed, lm-eval's, or those of a file.

Ours are the same samples under every protocol (common random numbers): sample i has the same key, value, haystack
offset and depth, so that a difference between two protocols is theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.probing.config import HarnessConfig
from lcprobe.probing.explain.protocol import Protocol
from lcprobe.probing.explain.wrapping import TEMPLATES, Frame, cue_tokens, framed
from lcprobe.probing.frozen import read_frozen
from lcprobe.probing.units import place_in_stratum
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Episode, Factors, Formats, Query
from lcprobe.tasks.niah import AND, NIAH
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

N_PILOT = 16
"""Samples from which lengths in other units, and what a template takes, are measured."""
SHARES = {"3/4": 0.75, "1/2": 0.5}
"""What is left of a prompt, by Protocol.cut."""
CHARACTERS = "characters/4"
WORDS = "words"
HARNESS_TASKS = {
    "ruler/niah_single_1": "niah_single_1",
    "ruler/niah_multikey_2": "niah_multikey_2",
    "ruler/niah_multikey_3": "niah_multikey_3",
    "ruler/vt": "ruler_vt",
    "ruler/cwe": "ruler_cwe",
    "ruler/fwe": "ruler_fwe",
}
"""Tasks of lm-eval that need no network, by the preset that they are the original of."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a task in one format. name: as configured, a preset or another name. templates: of chats,
    by name, the model's own among them where it has one."""

    name: str
    task: Task[Any]
    formats: Formats
    materials: Materials
    templates: Mapping[str, Frame] = field(default_factory=lambda: TEMPLATES)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self.materials.tokenizer


@dataclass(frozen=True)
class Prompted:
    """One question. ids: everything before the answer. answer: its tokens, None where they are not known. sample:
    questions of one sample count together."""

    ids: list[int]
    references: tuple[str, ...]
    answer: list[int] | None
    sample: int


def prompts_of(protocol: Protocol, subject: Subject, length: int, n: int, first: int = 0) -> list[Prompted]:
    """The questions of n samples, from sample `first` on, of a length as the protocol counts it.

    Raises EpisodeError for a length at which they cannot be built, ConfigError for samples of lm-eval that there are
    not, DataError for a file that is none.
    """
    made = _whole(protocol, subject, length, n, first)
    if protocol.tail == "space":  # the answer's first token has the space: from here on it is known as text alone
        space = _space(subject.tokenizer)
        made = [replace(prompt, ids=prompt.ids + space, answer=None) for prompt in made]
    if protocol.cut == "none":
        return made
    room = round(length * tokens_per_unit(protocol.counted, subject, length)) - protocol.budget
    if protocol.cut == "budget" and room < 1:
        raise EpisodeError("length", length, f"more than the budget ({protocol.budget} tokens)")
    kept = [room if protocol.cut == "budget" else round(len(p.ids) * SHARES[protocol.cut]) for p in made]
    return [replace(prompt, ids=prompt.ids[-most:]) for prompt, most in zip(made, kept, strict=True)]


def _whole(protocol: Protocol, subject: Subject, length: int, n: int, first: int) -> list[Prompted]:
    """The prompts before they are cut, and without what follows them."""
    if protocol.samples == "ours":
        return _ours(protocol, subject, length, n, first)
    if protocol.samples == "lm-eval":
        rows = [*_of_harness(subject.name, length, subject.tokenizer.json_text)][:n]
    else:
        rows = [(prompt.text, prompt.outputs) for prompt in read_frozen(Path(protocol.samples)).prompts[:n]]
    made = []
    for number, (text, references) in enumerate(rows):
        if protocol.template != "none" or protocol.wrapper != "none":
            text = framed(text, "", "it", protocol.template, protocol.wrapper, subject.templates)
        ids = _body(subject.tokenizer.encode(text), subject.tokenizer).tolist()
        made.append(Prompted(_with_bos(ids, protocol.bos, subject.tokenizer), tuple(references), None, number))
    return made


def tokens_per_unit(counted: str, subject: Subject, length: int) -> float:
    """Tokens of the model's tokenizer for one unit of `counted`, in texts of the task at this length. Raises
    ConfigError for a name that is neither a unit nor a tokenizer."""
    if not counted:
        return 1.0
    texts, tokens = [], 0
    for episode in _pilot(subject, length):
        ids = _body(episode.sequence(episode.queries[-1]), subject.tokenizer)
        tokens += len(ids)
        texts.append(subject.tokenizer.decode(ids))
    if counted == WORDS:
        units = sum(len(text.split()) for text in texts)
    elif counted == CHARACTERS:
        units = sum(map(len, texts)) / 4
    else:
        other = load_tokenizer(counted)
        units = sum(len(other.encode(text)) for text in texts)
    return tokens / units


def _space(tokenizer: Tokenizer) -> list[int]:
    """The tokens of a space at the end of a text."""
    return tokenizer.encode("is ").tolist()[len(tokenizer.encode("is")) :]


def with_keys(subject: Subject, keys: int) -> Subject:
    """The subject with so many keys in its contexts. Raises ConfigError for another task than niah, and for fewer
    keys than are queried."""
    task = subject.task
    if not isinstance(task, NIAH):
        raise ConfigError("keys", keys, f"a task niah ({subject.name} is {task.name})")
    config = replace(task.config, n_keys=keys)
    config.check("niah")
    return replace(subject, task=NIAH(config, task.materials))


def _ours(protocol: Protocol, subject: Subject, length: int, n: int, first: int) -> list[Prompted]:
    subject = with_keys(subject, protocol.keys) if protocol.keys else subject
    tokens = round(length * tokens_per_unit(protocol.counted, subject, length))
    pilot = _pilot(subject, tokens)
    answer_room = max(len(episode.ids) - episode.queries[-1].start for episode in pilot)
    free = {"answer": answer_room, "budget": protocol.budget, "none": 0}[protocol.room]
    tokens += answer_room - free
    if protocol.template != "none" or protocol.wrapper != "none":
        # the length is that of the whole prompt, so that what is put around it takes the place of haystack
        added = [
            len(_ids(protocol, subject, episode, episode.queries[-1])) - episode.queries[-1].start
            for episode in pilot
        ]
        tokens -= max(added)
    cells = [(depth, haystack) for depth in protocol.depths or (None,) for haystack in protocol.haystacks or (None,)]
    made = []
    for index in range(first, first + n):
        depth, haystack = cells[index % len(cells)]
        formats = (
            subject.formats if haystack is None else Formats(haystack, *(subject.formats.key, subject.formats.value))
        )
        factors = Factors(formats, tokens, place_in_stratum(index) if depth is None else depth, index)
        episode = subject.task.episode(factors)
        for query in episode.queries:
            answer = episode.sequence(query)[query.start : query.stop].tolist()
            ids = _ids(protocol, subject, episode, query)
            made.append(Prompted(ids, references_of(subject.task, query), answer, index))
    return made


def references_of(task: Task[Any], query: Query) -> tuple[str, ...]:
    """The answer's parts: several values of one key count one by one."""
    several = isinstance(task, NIAH) and task.config.n_values > 1
    return tuple(query.answer.split(AND)) if several else (query.answer,)


def _pilot(subject: Subject, tokens: int) -> list[Episode]:
    """The first episodes. Raises EpisodeError for a length that is too short."""
    if tokens < 1:
        raise EpisodeError("length", tokens, "a length that leaves room for a prompt")
    return [subject.task.episode(Factors(subject.formats, tokens, place_in_stratum(i), i)) for i in range(N_PILOT)]


def _ids(protocol: Protocol, subject: Subject, episode: Episode, query: Query) -> list[int]:
    """The prompt of a question, with what the protocol puts around it."""
    body = _body(episode.sequence(query)[: query.start], subject.tokenizer)
    if protocol.template == "none" and protocol.wrapper == "none":
        return _with_bos(body.tolist(), protocol.bos, subject.tokenizer)
    cue, tokenizer = cue_tokens(episode, query), subject.tokenizer
    context = tokenizer.decode(body[: len(body) - cue])
    words = tokenizer.text_of(body[len(body) - cue :]) if cue else ""
    text = framed(context, words, query.key, protocol.template, protocol.wrapper, subject.templates)
    return _with_bos(_body(tokenizer.encode(text), tokenizer).tolist(), protocol.bos, tokenizer)


def _body(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Ids without the begin token."""
    return ids[1:] if tokenizer.bos_id is not None and len(ids) and ids[0] == tokenizer.bos_id else ids


def _with_bos(ids: list[int], times: int | None, tokenizer: Tokenizer) -> list[int]:
    """Ids after begin tokens, as many as given; None: one, where the tokenizer has one."""
    return ids if tokenizer.bos_id is None else [tokenizer.bos_id] * (1 if times is None else times) + ids


@lru_cache(maxsize=8)
def _of_harness(name: str, length: int, tokenizer_json: str) -> Sequence[tuple[str, tuple[str, ...]]]:
    """lm-eval's prompts for the original of a preset, byte for byte as `lm_eval --tasks NAME` makes them, and their
    references; as long as its own count says."""
    from lcprobe.probing.external.lm_eval import USUAL_SEED, make_tasks

    if name not in HARNESS_TASKS:
        raise ConfigError("samples", "lm-eval", f"ours, or a task that lm-eval has: {' | '.join(HARNESS_TASKS)}")
    task_name, config = HARNESS_TASKS[name], HarnessConfig(max_seq_lengths=[length])
    config.check("lm-eval")
    made = make_tasks([task_name], config, tokenizer_json, USUAL_SEED)
    (task,) = made.by_name[task_name]["tasks"].values()
    rows: list[tuple[str, tuple[str, ...]]] = []
    for doc in task.test_docs():
        prompt = task.fewshot_context(doc, 0, gen_prefix=task.doc_to_prefix(doc))
        rows.append((prompt, tuple(doc["outputs"])))
    return rows
