"""Scores of a model under many protocols. Prompts are read once; what differs in the scorer only is scored again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


class Bench:
    """Measures one task with one model. n: samples; first: the index of the first."""

    def __init__(self, continuations: Continue, subject: Subject, n: int, first: int = 0):
        self.continuations, self.subject, self.n, self.first = continuations, subject, n, first
        self._prompts: dict[tuple[Protocol, int], list[Prompted]] = {}
        self._read: dict[tuple[Protocol, int], tuple[list[int], list[list[int]]]] = {}

    def measure(self, protocols: Sequence[Protocol], length: int) -> dict[Protocol, Measured | NotMeasured]:
        """Every protocol at one length."""
        steps: dict[Protocol, list[int]] = {}
        failed: dict[Protocol, NotMeasured] = {}
        for protocol in protocols:
            reading = protocol.reading
            if reading in failed:
                continue
            try:
                prompts = self._prompts_of(reading, length)
            except (ConfigError, DataError) as error:
                failed[reading] = NotMeasured(str(error))
                continue
            wanted = [_steps(protocol, prompt) for prompt in prompts]
            before = steps.get(reading, [0] * len(prompts))
            steps[reading] = [max(pair) for pair in zip(before, wanted, strict=True)]
        results: dict[Protocol, Measured | NotMeasured] = {}
        for protocol in protocols:
            reading = protocol.reading
            if reading in failed:
                results[protocol] = failed[reading]
                continue
            try:
                outputs = self._outputs(reading, length, steps[reading])
            except ConfigError as error:  # past the model's positions, or out of memory
                failed[reading] = results[protocol] = NotMeasured(str(error))
                continue
            results[protocol] = score(protocol, self._prompts_of(reading, length), outputs, self.subject.tokenizer)
        return results

    def _prompts_of(self, reading: Protocol, length: int) -> list[Prompted]:
        key = reading, length
        if key not in self._prompts:
            self._prompts[key] = prompts_of(reading, self.subject, length, self.n, self.first)
        return self._prompts[key]

    def _outputs(self, reading: Protocol, length: int, steps: list[int]) -> list[list[int]]:
        """Continuations of at least `steps` tokens; those that are there are taken."""
        key = reading, length
        done, outputs = self._read.get(key, ([], []))
        if not done or any(have < want for have, want in zip(done, steps, strict=True)):
            outputs = self.continuations([prompt.ids for prompt in self._prompts_of(*key)], steps)
            self._read[key] = steps, outputs
        return outputs


def score(
    protocol: Protocol, prompts: Sequence[Prompted], outputs: Sequence[list[int]], tokenizer: Tokenizer
) -> Measured:
    """The scores of continuations under a protocol; a continuation may be longer than its budget."""
    right: dict[int, list[bool]] = {}
    for prompt, output in zip(prompts, outputs, strict=True):
        ids = output[: _steps(protocol, prompt)]
        first = None if prompt.answer is None else ids[: len(prompt.answer)] == prompt.answer
        text = continuation_text(ids, tokenizer)
        right.setdefault(prompt.sample, []).extend(right_references(protocol.scorer, text, prompt.references, first))
    scores = np.array([combined(of, protocol.combine) for of in right.values()])
    tokens = sum(len(prompt.ids) for prompt in prompts) / len(prompts)
    return Measured(scores, max(len(of) for of in right.values()) if protocol.combine == "mean" else 1, tokens)


def continuation_text(ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """What a model wrote, without begin tokens, which end a document."""
    return tokenizer.decode(np.array([i for i in ids if i != tokenizer.bos_id], dtype=np.int64))


def _steps(protocol: Protocol, prompt: Prompted) -> int:
    """Tokens of a continuation that the scorer reads. Without a budget, the answer's; where these are not known, four
    for each reference and as many as it has characters."""
    if protocol.budget:
        return protocol.budget
    if prompt.answer is not None:
        return len(prompt.answer)
    return max(4 + len(reference) for reference in prompt.references)
