"""From a continuation to a score, 0 .. 1 of every reference: the rules by which people say that an answer is right.

ours         the continuation's first tokens are the answer's: what the probe scores
prefix       the text begins with the answer
substring    the answer is anywhere in it, ignoring case (RULER's string_match)
exact        the whole text is the answer
first_line   the answer is anywhere in the first line
first_word   the first word is the answer, punctuation apart
"""

import re
from collections.abc import Callable, Sequence

from lcprobe.probing.explain.protocol import Combine

Rule = Callable[[str, str], bool]
CONTROL = re.compile(r"[\x00-\x1f]")
PUNCTUATION = ".,;:!?\"'()[]"


def _prefix(text: str, reference: str) -> bool:
    return text.strip().startswith(reference)


def _substring(text: str, reference: str) -> bool:
    return reference.lower() in CONTROL.sub("\n", text.strip()).lower()


def _exact(text: str, reference: str) -> bool:
    return text.strip() == reference


def _first_line(text: str, reference: str) -> bool:
    return reference.lower() in text.strip().partition("\n")[0].lower()


def _first_word(text: str, reference: str) -> bool:
    words = text.split(maxsplit=len(reference.split()))[: len(reference.split())]
    return " ".join(words).strip(PUNCTUATION) == reference


RULES: dict[str, Rule] = {
    "prefix": _prefix,
    "substring": _substring,
    "exact": _exact,
    "first_line": _first_line,
    "first_word": _first_word,
}
SCORERS = ("ours", *RULES)
READS_ON = ("substring", "exact", "first_line")
"""Rules for which it matters how much follows the answer."""


def right_references(scorer: str, text: str, references: Sequence[str], first_tokens: bool | None) -> list[bool]:
    """Whether each reference is right. first_tokens: whether the continuation's tokens begin with the answer's; None
    where these are not known, and `ours` is `prefix`."""
    if scorer == "ours" and first_tokens is not None:
        return [first_tokens] * len(references)
    rule = RULES["prefix" if scorer == "ours" else scorer]
    return [rule(text, reference) for reference in references]


def combined(right: Sequence[bool], combine: Combine) -> float:
    """One score of several references."""
    if combine == "mean":
        return sum(right) / len(right)
    return float(all(right) if combine == "all" else any(right))
