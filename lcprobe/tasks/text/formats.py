"""Formats of keys and values: words, numbers, uuids, hex; drawn without repetition, optionally with an exact token
count.

    words     falcon, or amber-falcon where many are needed      numbers   4071932
    uuids     3f2c9a71-5b0e-4c1d-9e47-0a6b8d2f7c11               hex       as many tokens as a number has
    persons   Clara Thornby                                      places    greenhouse (questions about a small world)

With one token per digit a number has 7 tokens and a UUID 36, so that "format" would be confounded with answer length:
hex is matched to numbers, and `tokens` forces any count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

MAX_PER_STRING = 64
"""Candidates for each string that is needed before giving up."""
MAX_MISSES = 2000
"""Consecutive candidates that are repeated or of the wrong token count before a format counts as exhausted."""


@dataclass(frozen=True)
class StringFormat:
    """The format of the strings of one role."""

    kind: str
    digits: int = 7
    """Digits of a number."""
    pairs: bool = False
    """Words are adjective-noun pairs."""
    tokens: int | None = None
    """Exact token count, or null for any; not for uuids."""

    def __str__(self) -> str:
        size = f"tokens={self.tokens}" if self.tokens else f"{self.digits} digits" if self.kind == "numbers" else ""
        return f"{self.kind} ({size})" if size else self.kind


def draw_strings(
    form: StringFormat,
    n: int,
    draw: Stream,
    tokenizer: Tokenizer,
    free: Callable[[str], int],
    enough: int,
    key: str,
) -> list[str]:
    """n distinct strings, none inside another, as `freest` chooses them. Raises EpisodeError at `key` where there are
    fewer."""
    strings = freest(candidates(form, draw, tokenizer), n, free, enough)
    if strings is None:
        raise EpisodeError(key, f"{n} distinct {form}", "a longer format, fewer needles or another haystack")
    return strings


def freest(source: Iterator[str], n: int, free: Callable[[str], int], enough: int) -> list[str] | None:
    """n strings, none inside another, in drawn order: the first n that are free for `enough` tokens; where there are
    fewer, the freest of the first MAX_PER_STRING * (n + 4); None where those are fewer than n too.

    free(string): tokens that do not contain it, -1 to refuse it. `enough` is the same for every length of an episode,
    so the choice is too, unless a string is refused for what a longer context contains.
    """
    found: list[str] = []
    considered: list[tuple[int, str]] = []
    for string in islice(source, MAX_PER_STRING * (n + 4)):
        tokens = free(string)
        if tokens >= enough and _is_apart(string, found):
            found.append(string)
            if len(found) == n:
                return found
        if tokens >= 0:
            considered.append((tokens, string))
    chosen: list[str] = []
    for _, string in sorted(considered, key=lambda c: -c[0]):  # stable: among equally free ones the earlier drawn
        if len(chosen) < n and _is_apart(string, chosen):
            chosen.append(string)
    # in drawn order: the freest first would be the target, and so the answer, too often
    return [s for _, s in considered if s in chosen] if len(chosen) == n else None


def _is_apart(string: str, others: list[str]) -> bool:
    return not any(string in other or other in string for other in others)


def candidates(form: StringFormat, draw: Stream, tokenizer: Tokenizer, ahead: int = 1) -> Iterator[str]:
    """Distinct strings with the wanted token count, as the tokenizer expresses them, in drawn order, until the format
    is exhausted. ahead: how many are drawn and tokenised at once, which is quicker and for a stream of its own."""
    wanted = form.tokens
    if form.kind == "hex" and wanted is None:
        wanted = token_count(tokenizer, "7" * form.digits)
    if form.kind == "places" or (form.kind == "words" and not form.pairs):
        words = _words_of(tokenizer, "nouns" if form.kind == "words" else "places", wanted)
        yield from (words[i] for i in draw.permutation(len(words)))
        return
    if form.kind == "numbers" and form.digits <= 2 and wanted is None:
        low, high = _bounds(form.digits)
        yield from (str(low + i) for i in draw.permutation(high - low))
        return
    sizes: tuple[int, ...] = (form.digits,)
    if wanted is not None and form.kind in ("numbers", "hex"):
        sizes = _sizes_of(tokenizer, form.kind, wanted)
    if not sizes:
        return
    seen: set[str] = set()
    misses, any_count = 0, wanted is None or form.kind == "uuids"
    source = _endless(form, draw, sizes)
    if ahead > 1 and not any_count:
        source = _tokenised_together(source, tokenizer, ahead)
    for drawn in source:
        folded = tokenizer.expressed(drawn)
        string = folded if len(folded) == len(drawn) else drawn  # one that loses characters is for check_format
        if string in seen or not (any_count or token_count(tokenizer, string) == wanted):
            misses += 1
            if misses == MAX_MISSES:
                return
            continue
        seen.add(string)
        misses = 0
        yield string


def check_format(key: str, form: StringFormat, tokenizer: Tokenizer) -> None:
    """Raise EpisodeError when the tokenizer has no such string or changes it in a round trip."""
    string = next(candidates(form, Stream("check", form.kind), tokenizer), None)
    if string is None:
        raise EpisodeError(key, f"{form.kind} of {form.tokens} tokens", "a token count that this tokenizer can give")
    if tokenizer.decode(tokenizer.encode("a " + string)).strip() != "a " + string:
        raise EpisodeError(key, form.kind, "a format that this tokenizer gives back unchanged")


def token_count(tokenizer: Tokenizer, string: str) -> int:
    """Tokens of a string after a space."""
    return len(tokenizer.piece(" " + string))


def _endless(form: StringFormat, draw: Stream, sizes: tuple[int, ...]) -> Iterator[str]:
    """Strings of a format as they are drawn, with repetitions."""
    if form.kind in ("words", "persons"):
        first, second, mark = ("adjectives", "nouns", "-") if form.kind == "words" else ("persons", "surnames", " ")
        firsts, seconds = read_words(first), read_words(second)
        for i, j in draw.rounds(len(firsts), len(seconds)):
            yield firsts[i] + mark + seconds[j]
    elif form.kind == "uuids":
        for (number,) in draw.rounds(2**128):
            raw = f"{number:032x}"
            raw = raw[:12] + "4" + raw[13:16] + "89ab"[int(raw[16], 16) % 4] + raw[17:]  # version 4, variant 1
            yield f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
    elif form.kind == "numbers" and len(sizes) == 1:
        low, high = _bounds(sizes[0])
        for _, number in draw.rounds(1, high - low):
            yield str(low + number)
    while True:
        yield _characters(form.kind, draw, draw.pick(sizes))


def _tokenised_together(source: Iterator[str], tokenizer: Tokenizer, ahead: int) -> Iterator[str]:
    """The same strings; the tokenizer has the pieces of `ahead` at a time when the first of them is asked for."""
    while strings := list(islice(source, ahead)):
        tokenizer.pieces([" " + tokenizer.expressed(string) for string in strings])
        yield from strings


def _characters(kind: str, draw: Stream, size: int) -> str:
    if kind == "hex":
        return "".join("0123456789abcdef"[i] for i in draw.integers(16, size))
    low, high = _bounds(size)
    return str(low + draw.integer(high - low))


def _bounds(digits: int) -> tuple[int, int]:
    """The least number of so many digits, and the least that has more."""
    return (10 ** (digits - 1) if digits > 1 else 0), 10**digits


@lru_cache(maxsize=64)
def _sizes_of(tokenizer: Tokenizer, kind: str, tokens: int) -> tuple[int, ...]:
    """Numbers of characters at which strings of this kind most often have this many tokens."""
    draw = Stream("sizes", kind, tokens)
    hits = {
        size: sum(token_count(tokenizer, _characters(kind, draw, size)) == tokens for _ in range(24))
        for size in range(1, min(4 * tokens + 2, 40))
    }
    most = max(hits.values())
    return tuple(size for size, n in hits.items() if n and n >= most / 2)


@lru_cache(maxsize=32)
def _words_of(tokenizer: Tokenizer, name: str, tokens: int | None) -> list[str]:
    words = read_words(name)
    return words if tokens is None else [w for w in words if token_count(tokenizer, w) == tokens]
