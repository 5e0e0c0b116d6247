"""Somebody's measurement, written again from nothing but a task's texts: prompts, tokens and scores by other code
than `lcprobe.probing.explain`, with one thing done differently. Samples are none of ours.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lcprobe.probing.explain.outputs import Output
from lcprobe.probing.explain.prompts import Subject
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import Episode, Factors, Formats
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import load_tokenizer

Reader = Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[int]]]
FIRST = 1_000_000
"""Index of their first sample."""


@dataclass(frozen=True)
class Theirs:
    """What they measure: a model and a task. written: their prompts and continuations, of everything since it was
    emptied."""

    reader: Reader
    subject: Subject
    written: list[Output] = field(default_factory=list)

    def number(self, texts: Sequence[tuple[list[int], str]], right: Callable[[str, str], bool], budget: int) -> float:
        """The share of (prompt, answer) whose continuation of `budget` tokens is right."""
        outputs = self.reader([ids for ids, _ in texts], [budget] * len(texts))
        tokenizer = self.subject.tokenizer
        said = [tokenizer.decode(np.array([i for i in ids if i != tokenizer.bos_id])) for ids in outputs]
        for text, (ids, answer) in zip(said, texts, strict=True):
            prompt = tokenizer.decode(np.array([i for i in ids if i != tokenizer.bos_id]))
            self.written.append(Output(prompt, text, (answer,)))
        return sum(right(text, answer) for text, (_, answer) in zip(said, texts, strict=True)) / len(texts)

    def episodes(self, length: int, n: int, first: int, depth: float | None = None) -> list[Episode]:
        """Episodes of exactly this length, the needle anywhere."""
        drawn = Stream("their depths", first).uniform(n)
        depths = drawn if depth is None else np.full(n, depth)
        return [
            self.subject.task.episode(Factors(self.subject.formats, length, float(d), FIRST + first + i))
            for i, d in enumerate(depths)
        ]

    def texts(self, length: int, n: int, first: int, depth: float | None = None) -> list[tuple[list[int], str]]:
        """Prompts in tokens, as we have them, and answers."""
        found = []
        for episode in self.episodes(length, n, first, depth):
            (query,) = episode.queries
            found.append((episode.ids[: query.start].tolist(), query.answer))
        return found


def begins(said: str, answer: str) -> bool:
    """Ours, in text."""
    return said.lstrip().startswith(answer)


def _unchanged(theirs: Theirs, length: int, n: int, first: int) -> float:
    return theirs.number(theirs.texts(length, n, first), begins, 16)


def _anywhere(theirs: Theirs, length: int, n: int, first: int) -> float:
    return theirs.number(theirs.texts(length, n, first), lambda said, answer: answer in said, 128)


def _whole(theirs: Theirs, length: int, n: int, first: int) -> float:
    return theirs.number(theirs.texts(length, n, first), lambda said, answer: said.strip() == answer, 128)


def _in_first_line(theirs: Theirs, length: int, n: int, first: int) -> float:
    texts = theirs.texts(length, n, first)
    return theirs.number(texts, lambda said, answer: answer in said.strip().split("\n")[0], 128)


def _budget_inside(theirs: Theirs, length: int, n: int, first: int) -> float:
    prompts = theirs.texts(length - 128, n, first)  # shorter than asked by what the answer takes: they do not know it
    return theirs.number(prompts, begins, 16)


def _ruler(theirs: Theirs, length: int, n: int, first: int) -> float:
    """As RULER's own script: the answer anywhere in 128 tokens, which are inside the length."""
    return theirs.number(theirs.texts(length - 128, n, first), lambda said, answer: answer in said, 128)


def _cut(theirs: Theirs, length: int, n: int, first: int) -> float:
    """As lm-eval cuts prompts that do not fit beside the budget: on the left."""
    texts = [(ids[-(length - 128) :], answer) for ids, answer in theirs.texts(length, n, first)]
    return theirs.number(texts, begins, 16)


def _worse(theirs: Theirs, length: int, n: int, first: int) -> float:
    """Another checkpoint, which knows half as much: no change of the measurement."""

    def half(prompts: Sequence[Sequence[int]], steps: Sequence[int]) -> list[list[int]]:
        unknown = theirs.subject.tokenizer.encode(" not known.").tolist()
        knows = Stream("worse", first).uniform(len(prompts)) < 0.5
        outputs = theirs.reader(prompts, steps)
        return [ids if known else unknown for ids, known in zip(outputs, knows, strict=True)]

    return Theirs(half, theirs.subject, theirs.written).number(theirs.texts(length, n, first), begins, 16)


def _other_rate(theirs: Theirs, length: int, n: int, first: int) -> float:
    """Another checkpoint, which knows more the longer the text is."""
    said = theirs.texts(length, n, first)
    right = Stream("other rate", first).uniform(n) < length / 800
    unknown = theirs.subject.tokenizer.encode(" not known.").tolist()
    tokenizer = theirs.subject.tokenizer
    outputs = [tokenizer.encode(f" {a}.").tolist() if r else unknown for r, (_, a) in zip(right, said, strict=True)]
    return Theirs(lambda _, steps: outputs, theirs.subject, theirs.written).number(said, begins, 16)


def _other_tokenizer(theirs: Theirs, length: int, n: int, first: int) -> float:
    other = load_tokenizer("shipped")
    task = type(theirs.subject.task)(theirs.subject.task.config, Materials(other))
    tokenizer, found = theirs.subject.tokenizer, []
    for i, depth in enumerate(Stream("their depths", first).uniform(n)):
        episode = task.episode(Factors(theirs.subject.formats, length, float(depth), FIRST + first + i))
        (query,) = episode.queries
        text = other.decode(episode.ids[1 : query.start])
        found.append(([tokenizer.bos_id, *tokenizer.encode(text).tolist()], query.answer))
    return theirs.number(found, begins, 16)


def _no_begin(theirs: Theirs, length: int, n: int, first: int) -> float:
    return theirs.number([(ids[1:], a) for ids, a in theirs.texts(length, n, first)], begins, 16)


def _rewritten(
    theirs: Theirs, length: int, n: int, first: int, write: Callable[[str, str], str]
) -> list[tuple[list[int], str]]:
    """Prompts written anew: the text up to the last full stop, and what follows; as long as without."""
    tokenizer = theirs.subject.tokenizer
    added = len(tokenizer.encode(write("", "")))
    found = []
    for ids, answer in theirs.texts(length - added, n, first):
        context, _, cue = tokenizer.decode(np.array(ids[1:])).rpartition("The secret value for")
        text = write(context.strip(), "The secret value for" + cue)
        found.append(([tokenizer.bos_id, *tokenizer.encode(text).tolist()], answer))
    return found


def _chat(theirs: Theirs, length: int, n: int, first: int) -> float:
    def write(context: str, cue: str) -> str:
        return f"<|im_start|>user\n{context}<|im_end|>\n<|im_start|>assistant\n{cue}"

    return theirs.number(_rewritten(theirs, length, n, first, write), begins, 16)


def _instructed(theirs: Theirs, length: int, n: int, first: int) -> float:
    def write(context: str, cue: str) -> str:
        return f"Read the following text and answer the question at its end.\n\n{context}\n\n{cue}"

    return theirs.number(_rewritten(theirs, length, n, first, write), begins, 16)


def _lm_eval(theirs: Theirs, length: int, n: int, first: int) -> float:
    """lm-eval's generator, called by itself with lm-eval's seed: the samples that its users have."""
    import nltk

    nltk.download = lambda *_, **__: False  # lm-eval asks for a file that this task does not need
    from lm_eval.tasks.ruler.niah_utils import TEMPLATE
    from lm_eval.tasks.ruler.prepare_niah import generate_samples, get_haystack

    random.seed(0)
    tokenizer = theirs.subject.tokenizer

    class Counts:
        def __call__(self, text: str) -> "Counts":
            self.input_ids = tokenizer.encode(text).tolist()
            return self

    rows = generate_samples(
        get_haystack(type_haystack="repeat"),
        max_seq_length=length,
        template=TEMPLATE,
        type_haystack="repeat",
        type_needle_k="words",
        type_needle_v="numbers",
        num_samples=500,
        TOKENIZER=Counts(),
    )
    texts = [(f"{row['input']} {row['gen_prefix']}", row["outputs"][0]) for row in rows]
    prompts = [([tokenizer.bos_id, *tokenizer.encode(text).tolist()], answer) for text, answer in texts]
    return theirs.number(prompts, begins, 16)


def _at_the_end(theirs: Theirs, length: int, n: int, first: int) -> float:
    """The needle always last, as where it is appended to the haystack."""
    return theirs.number(theirs.texts(length, n, first, depth=1.0), begins, 16)


def _two_haystacks(theirs: Theirs, length: int, n: int, first: int) -> float:
    """A mean of cells of several formats, where ours is of one."""
    numbers = []
    for k, haystack in enumerate(("noise", "words")):
        formats = Formats(haystack, theirs.subject.formats.key, theirs.subject.formats.value)
        own = theirs.subject
        other = Theirs(theirs.reader, Subject(own.name, own.task, formats, own.materials), theirs.written)
        numbers.append(other.number(other.texts(length, n // 2, first + n * k), begins, 16))
    return sum(numbers) / 2


Measure = Callable[[Theirs, int, int, int], float]
"""Their number: of a length, of n samples, from sample `first` of theirs on."""


class Plant(NamedTuple):
    """A cause that is planted. named: the condition that `explain` should name; empty where there is none that it
    tries."""

    cause: str
    named: str
    what: str
    measure: Measure


OUTSIDE = "something else"
"""The cause of what no change of the measurement is."""
UNCHANGED: Measure = _unchanged
LM_EVAL = Plant("samples", "samples: lm-eval", "lm-eval's samples", _lm_eval)
PLANTS = (
    Plant("scorer", "scorer: substring", "the answer anywhere in 128 tokens", _anywhere),
    Plant("scorer", "scorer: exact", "nothing but the answer in 128 tokens", _whole),
    Plant("scorer", "scorer: first_line", "the answer anywhere in the first line", _in_first_line),
    Plant("length", "length: budget inside", "128 tokens to generate inside the length", _budget_inside),
    Plant("tokenizer", "tokenizer: shipped", "length counted with another tokenizer", _other_tokenizer),
    Plant("bos", "bos: none", "no begin token", _no_begin),
    Plant("template", "template: chatml", "a chat template", _chat),
    Plant("wrapper", "wrapper: instruction", "an instruction around the text", _instructed),
    Plant("aggregation", "aggregation: depth 1", "one cell of the depths: the needle last", _at_the_end),
    Plant("aggregation", "aggregation: several haystacks", "a mean over the cells of two haystacks", _two_haystacks),
    Plant("protocol", "protocol: ruler", "128 tokens inside the length, the answer anywhere in them", _ruler),
    Plant("cut", "cut: to the length less the budget", "prompts cut on the left to leave room for 128 tokens", _cut),
    LM_EVAL,
    Plant(OUTSIDE, "", "another checkpoint, half as good at every length", _worse),
    Plant(OUTSIDE, "", "another checkpoint, better the longer the text", _other_rate),
)
