"""Lengths in configs: multiples of the training length (`0.5`, `2`) or tokens (`64t`, `1Kt`; K is 1,024)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from lcprobe.errors import ConfigError, require
from lcprobe.schema import Converter, Written

ALLOWED = "a number > 0, times the training length (0.5), or tokens (64t, 1Kt)"
TOKENS = re.compile(r"([1-9][0-9]*)(K?)t")
MAX_TOKENS = 1 << 27
"""Tokens of a sequence, at most: one of this length takes a gigabyte before any model reads it."""


@dataclass(frozen=True, eq=False, repr=False)
class Length(Written):
    """A multiple of the training length, or a number of tokens."""

    number: float
    in_tokens: bool = False

    @property
    def written(self) -> float | str:
        """`0.5` or `64t`, and `1Kt` where the tokens are a multiple of 1,024."""
        if not self.in_tokens:
            return self.number
        whole, rest = divmod(int(self.number), 1024)
        return f"{int(self.number)}t" if rest else f"{whole}Kt"

    def resolve(self) -> None:
        """Nothing to import."""

    def __str__(self) -> str:
        return str(self.written) if self.in_tokens else f"{self.number:g}"

    def tokens(self, context_length: int, key: str) -> int:
        """The length in tokens for a training length. Raises ConfigError for a multiple that is no whole number of
        tokens, and for more than MAX_TOKENS."""
        if self.in_tokens:
            return int(self.number)
        exact = self.number * context_length
        if abs(exact - round(exact)) > 1e-6 or round(exact) < 1:
            raise ConfigError(key, self.number, f"a multiple that gives whole tokens of {context_length}")
        if exact > MAX_TOKENS:
            given = f"{self} times the training length of {context_length} tokens"
            raise ConfigError(key, given, f"at most {MAX_TOKENS} tokens")
        return round(exact)


class LengthConverter(Converter):
    """Reads a Length; see `Annotated` in lcprobe.schema."""

    def convert(self, value: object, key: str) -> Length:
        """Raises ConfigError for anything that is neither a multiple nor tokens."""
        if isinstance(value, Length):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
            if value > MAX_TOKENS:
                raise ConfigError(
                    key, value, f"at most {MAX_TOKENS} tokens, and as a number times the training length"
                )
            return Length(float(value))
        found = TOKENS.fullmatch(value) if isinstance(value, str) else None
        if found is None or len(found[1]) > 12:
            raise ConfigError(key, value, ALLOWED)
        tokens = int(found[1]) * (1024 if found[2] else 1)
        if tokens > MAX_TOKENS:
            raise ConfigError(key, value, f"at most {MAX_TOKENS}t")
        return Length(tokens, True)

    def allowed(self) -> str:
        """What may be written."""
        return ALLOWED


LENGTH = LengthConverter()


@dataclass(frozen=True)
class LengthStage:
    """A stretch of training with its own context length."""

    until: float = 1.0
    """Share of the token budget at which it ends; the last one ends at 1."""
    length: Annotated[Length, LENGTH] = field(default_factory=lambda: Length(1.0))
    """Tokens that a sequence has until then: a fraction of train.context_length (0.5) or tokens (64t), a divisor of
    it."""

    def tokens(self, context_length: int, at: str) -> int:
        """The length in tokens. Raises ConfigError naming `at`.length where rows of context_length tokens cannot be
        split into such sequences."""
        tokens = self.length.tokens(context_length, f"{at}.length")
        whole = tokens <= context_length and context_length % tokens == 0
        require(f"{at}.length", self.length.written, whole, f"a divisor of context_length ({context_length})")
        return tokens


def schedule_text(schedule: Sequence[LengthStage], context_length: int) -> str:
    """`64 until 0.5, then 128`; empty without a schedule."""
    tokens = [stage.tokens(context_length, "train.length_schedule") for stage in schedule]
    parts = [f"{n:,} until {stage.until:g}" for n, stage in zip(tokens[:-1], schedule, strict=False)]
    return f"{', '.join(parts)}, then {tokens[-1]:,}" if parts else ""


def multiples(*numbers: float) -> list[Length]:
    """Multiples of the training length."""
    return [Length(float(number)) for number in numbers]


def in_tokens(*tokens: int) -> list[Length]:
    """Lengths in tokens."""
    return [Length(number, True) for number in tokens]


def check_lengths(lengths: Sequence[Length], key: str) -> None:
    """Raises ConfigError for no length at all, and for multiples and tokens in one list."""
    require(key, [], len(lengths) > 0, "at least one length")
    kinds = {length.in_tokens: length for length in reversed(lengths)}
    if len(kinds) > 1:
        given = f"{kinds[False]} and {kinds[True]}"
        raise ConfigError(key, given, "multiples of the training length or tokens (64t), not both in one list")


def tokens_of(lengths: Sequence[Length], context_lengths: Sequence[int], key: str) -> list[int]:
    """The lengths in tokens for all of the training lengths, ascending, each once. Raises ConfigError as
    `Length.tokens`."""
    absolute = {int(length.number) for length in lengths if length.in_tokens}
    multiplied = (length for length in lengths if not length.in_tokens)
    return sorted(absolute | {length.tokens(context, key) for length in multiplied for context in context_lengths})
