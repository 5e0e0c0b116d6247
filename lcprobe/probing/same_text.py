"""Episodes of the same text for several tokenizers: built under the first, the reference, and encoded again for the
others.

A sample that one tokenizer cannot represent is laid out again at another place of the haystack for all of them, so
that every model answers the same questions about the same characters.
"""

from dataclasses import dataclass
from typing import Any

from lcprobe.errors import EpisodeError
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Episode, Factors
from lcprobe.tasks.parts.same_text import NotSameText, in_tokens_of
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer

ATTEMPTS = 16
"""Layouts of a sample that are tried until every tokenizer can represent it."""


@dataclass(frozen=True)
class SameText:
    """reference: the materials that texts are made of. tokenizers: the reference's first. names: of the tokenizers,
    for messages."""

    reference: Materials
    tokenizers: tuple[Tokenizer, ...]
    names: tuple[str, ...]

    @property
    def facts(self) -> list[list[Any]]:
        """What a text depends on besides the reference: every tokenizer, since each may have a sample laid out
        again."""
        return [[tokenizer.digest, tokenizer.bos_id] for tokenizer in self.tokenizers]

    def episodes(self, task: Task, factors: Factors) -> list[Episode]:
        """One sample in the tokens of each tokenizer; factors.length counts those of the reference.

        Raises EpisodeError, naming the tokenizer, where one of them can represent no attempt.
        """
        failed = None
        for episode in task.attempts(factors, ATTEMPTS):
            made = [episode]
            for number, tokenizer in enumerate(self.tokenizers[1:], 1):
                try:
                    made.append(in_tokens_of(tokenizer, episode, self.tokenizers[0]))
                except NotSameText as error:
                    failed = number, error
                    break
            else:
                return made
        number, reason = failed or (0, NotSameText("merges across word boundaries"))
        control = "" if factors.control == "none" else f" ({factors.control})"
        what = f"{task.name} {factors.formats}{control}"
        allowed = f"tokens, as {what} cannot be the same text with {self.names[number]}, {reason.given}"
        raise EpisodeError("probe.equal_length", "text", allowed)
