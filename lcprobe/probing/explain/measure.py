"""Scores of a model under many protocols. Prompts are read once; what differs in the scorer only is scored again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lcprobe.errors import ConfigError, DataError
from lcprobe.probing.explain.prompts import Prompted, Subject, prompts_of
from lcprobe.probing.explain.protocol import Protocol
from lcprobe.probing.explain.scorers import combined, right_references
from lcprobe.tasks.text.tokenizer import Tokenizer

Continue = Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[int]]]
"""Prompts and tokens to generate for each -> greedy continuations, shorter where the model ends the document."""


@dataclass(frozen=True)
class Measured:
    """scores: (n_samples,) 0 .. 1 by sample. answers: references of all samples. tokens: mean of a prompt's."""

    scores: np.ndarray
    answers: int
    tokens: float


@dataclass(frozen=True)
class NotMeasured:
    """A protocol that cannot be measured here, and why."""

    reason: str


@dataclass(frozen=True)
class _Read:
    """What was read under a protocol: the questions without their prompts, the tokens of these, and continuations of
    `steps` tokens."""

    asked: list[Prompted]
    tokens: list[int]
    steps: list[int]
    outputs: list[list[int]]


class Bench:
    """Measures one task with one model. n: samples; first: the index of the first. Continuations are kept, prompts
    are not."""

    def __init__(self, continuations: Continue, subject: Subject, n: int, first: int = 0):
        self.continuations, self.subject, self.n, self.first = continuations, subject, n, first
        self._read: dict[tuple[Protocol, int], _Read | NotMeasured] = {}

    def measure(self, protocols: Sequence[Protocol], length: int) -> dict[Protocol, Measured | NotMeasured]:
        """Every protocol at one length."""
        by_reading: dict[Protocol, list[Protocol]] = {}
        for protocol in protocols:
            by_reading.setdefault(protocol.reading, []).append(protocol)
        results: dict[Protocol, Measured | NotMeasured] = {}
        for reading, alike in by_reading.items():
            read = self._reading(reading, alike, length)
            for protocol in alike:
                results[protocol] = read if isinstance(read, NotMeasured) else _score(protocol, read, self.subject)
        return {protocol: results[protocol] for protocol in protocols}

    def _reading(self, reading: Protocol, scored: Sequence[Protocol], length: int) -> _Read | NotMeasured:
        """Continuations that are long enough for every protocol that is scored on them; those that are there are
        taken."""
        known = self._read.get((reading, length))
        if isinstance(known, NotMeasured):
            return known
        if known is not None and not any(a < b for a, b in zip(known.steps, _most(scored, known.asked), strict=True)):
            return known
        try:
            prompts = prompts_of(reading, self.subject, length, self.n, self.first)
            steps = _most(scored, prompts)
            if known is not None:
                steps = [max(pair) for pair in zip(steps, known.steps, strict=True)]
            ids = [prompt.ids for prompt in prompts]
            outputs = self.continuations(ids, steps)
            read = _Read([replace(prompt, ids=[]) for prompt in prompts], [len(i) for i in ids], steps, outputs)
        except (ConfigError, DataError) as error:  # too short, past the model's positions, samples that there are not
            read = NotMeasured(str(error))
        self._read[reading, length] = read
        return read


def _score(protocol: Protocol, read: _Read, subject: Subject) -> Measured:
    """The scores of continuations under a protocol; a continuation may be longer than its budget."""
    right: dict[int, list[bool]] = {}
    for prompt, output in zip(read.asked, read.outputs, strict=True):
        ids = output[: _steps(protocol, prompt)]
        first = None if prompt.answer is None else ids[: len(prompt.answer)] == prompt.answer
        text = continuation_text(ids, subject.tokenizer)
        right.setdefault(prompt.sample, []).extend(right_references(protocol.scorer, text, prompt.references, first))
    scores = np.array([combined(of, protocol.combine) for of in right.values()])
    answers = max(len(of) for of in right.values()) if protocol.combine == "mean" else 1
    return Measured(scores, answers, sum(read.tokens) / len(read.tokens))


def continuation_text(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """What a model wrote, without begin tokens, which end a document."""
    return tokenizer.decode(np.array([i for i in ids if i != tokenizer.bos_id], dtype=np.int64))


def _most(protocols: Sequence[Protocol], prompts: Sequence[Prompted]) -> list[int]:
    """Tokens of each prompt's continuation that one of the scorers reads."""
    return [max(_steps(protocol, prompt) for protocol in protocols) for prompt in prompts]


def _steps(protocol: Protocol, prompt: Prompted) -> int:
    """Tokens of a continuation that the scorer reads. Without a budget, the answer's; where these are not known, four
    for each reference and as many as it has characters."""
    if protocol.budget:
        return protocol.budget
    if prompt.answer is not None:
        return len(prompt.answer)
    return max(4 + len(reference) for reference in prompt.references)
