"""Prompt templates: the text around a prompt that a model was tuned on, as a factor of the probe.

    BOS, before, prompt, question, between, answer prefix, answer

`before` opens the user's turn and `between` ends it and opens the assistant's, which begins with the answer prefix:
the words that force the form of the answer, such as `The secret value for falcon is`. Our pieces begin with a space,
so spaces at the end of either text are theirs: a template changes no token of the prompt or of the prefix. A model's
own chat template is split into the same two texts by `chat_template`.

Sources of the named ones: `template.py` of the evaluation of arXiv 2407.08112 (jhuang265/RULER, after NVIDIA's),
which gave the first to Sheared-LLaMA, tuned or not, and the second to RWKV.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.tasks.text.tokenizer import ANCHOR, Tokenizer

WORD = " a"
ENDS = ("", ".", ";", ":", "?", ")", '"', "1")
"""What the text before a template's second part may end with."""


@dataclass(frozen=True)
class PromptTemplate:
    """before: between BOS and the prompt. between: between the end of the question and the answer prefix. marks:
    texts in them that have to be one token each."""

    name: str
    before: str
    between: str
    marks: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        """Whether it adds nothing."""
        return not self.before and not self.between


NO_TEMPLATE = PromptTemplate("none", "", "")
NAMED_TEMPLATES = {
    "none": NO_TEMPLATE,
    "instruction": PromptTemplate(
        "instruction",
        "You are a helpful assistant. Write a response that appropriately completes the request.\n\n### Input:\n",
        "\n\n### Response:",
    ),
    "rwkv": PromptTemplate(
        "rwkv",
        "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full details. "
        "Please feel free to ask any question and I will always answer it\n\nUser:",
        "\n\nAssistant:",
    ),
}
"""Templates that any model can be given, by the name in `probe.templates`."""


class Frame(NamedTuple):
    """A template in tokens: before (n,) without BOS, between (m,), and the ids of special tokens in it, at which a
    tokenizer divides a text before all else."""

    before: np.ndarray
    between: np.ndarray
    marks: frozenset[int]


def frame_of(template: PromptTemplate, tokenizer: Tokenizer) -> Frame:
    """A template in the tokens of a tokenizer, BOS left out, which an episode has once. Raises EpisodeError naming
    the template where a special token is none, where text is not given back, or merges with what surrounds it."""
    text = template.before + template.between
    for mark in template.marks:
        if mark in text and tokenizer.encode(mark).size != 1:
            raise _error(template, f"a tokenizer that has no token {mark!r}")
    marks = tokenizer.added_in(text)
    before = _before(template, tokenizer)
    between = _between(template, tokenizer)
    return Frame(before, between, marks)


def _before(template: PromptTemplate, tokenizer: Tokenizer) -> np.ndarray:
    text = template.before.rstrip(" ")
    if not text:
        return tokenizer.encode("")
    ids = _up_to_word(tokenizer, text)
    if ids is None:
        raise _error(template, "a tokenizer that merges it with the prompt")
    if tokenizer.bos_id is not None and len(ids) and ids[0] == tokenizer.bos_id:
        ids = ids[1:]
    _check_given_back(template, text, ids, tokenizer)
    return ids


def _between(template: PromptTemplate, tokenizer: Tokenizer) -> np.ndarray:
    """The same tokens after any prompt: after a space where the tokenizer merges line breaks with a full stop."""
    text = template.between.rstrip(" ")
    if not text:
        return tokenizer.encode("")
    for given in (text, " " + text):
        found = [_after(tokenizer, ANCHOR + end, given) for end in ENDS]
        first = found[0]
        if first is not None and all(ids is not None and np.array_equal(ids, first) for ids in found):
            _check_given_back(template, text, first, tokenizer)
            return first
    raise _error(template, "a tokenizer that merges it with the question or with the answer")


def _after(tokenizer: Tokenizer, prompt: str, text: str) -> np.ndarray | None:
    """Ids of a text between a prompt and a word; None where it merges with one of them."""
    start, ids = tokenizer.encode(prompt), _up_to_word(tokenizer, prompt + text)
    return ids[len(start) :] if ids is not None and np.array_equal(ids[: len(start)], start) else None


def _up_to_word(tokenizer: Tokenizer, text: str) -> np.ndarray | None:
    """Ids of a text before a word; None where it merges with it. Some tokenizers put a space after a special token:
    after it, a word begins without one."""
    word = tokenizer.piece(WORD)
    for next_word in (WORD, WORD.strip()):
        ids = tokenizer.encode(text + next_word)
        if np.array_equal(ids[-len(word) :], word):
            return ids[: -len(word)]
    return None


def _check_given_back(template: PromptTemplate, text: str, ids: np.ndarray, tokenizer: Tokenizer) -> None:
    """Spaces apart, of which some tokenizers add some, and line breaks after special tokens, which some drop."""
    whole = tokenizer.decode(ids)
    if tokenizer.bos_id is not None:
        bos = tokenizer.decode(np.array([tokenizer.bos_id]))
        text, whole = text.removeprefix(bos), whole.removeprefix(bos)
    same = "".join(whole.split()).lower() == "".join(tokenizer.expressed(text).split()).lower()
    breaks = "\n" not in text or "\n" in tokenizer.decode(tokenizer.encode("a\na"))
    if not same or not breaks:
        raise _error(template, "a tokenizer that does not give back its text")


def _error(template: PromptTemplate, given: str) -> EpisodeError:
    return EpisodeError("probe.templates", f"{template.name} with {given}", "none, or the template of another model")
