"""Lines that look like needles: for every sample keys and values are sampled without replacement from one pool, those
of the needles first.

Knowing the contexts of other samples must not reveal the target line as the only one never seen before, nor knowing
texts as the only one that texts hardly have. So the strings of needles and those of distractor lines come from the
same pool by the same permutation and are absent from the same texts, and a key has another value in every sample: for
a given context, each of its lines is as likely to be the target as any other, whatever other contexts and the corpus
contain.

A permutation is keyed and known at any place at once (`LazyPermutation`), so that a longer sample begins with the
strings of a shorter one. Keys are taken from its front and values from its back: of one and the same format the two
never meet.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Draws, LazyPermutation, Stream
from lcprobe.tasks.episode import MAX_CANDIDATES
from lcprobe.tasks.parts.layout import EMPTY
from lcprobe.tasks.parts.placement import FEWER, Filled, UniqueStrings
from lcprobe.tasks.text.formats import StringFormat, candidates
from lcprobe.tasks.text.haystack import Occurrences, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer

STRING_POOL, UUID_POOL = 1 << 15, 1 << 13
"""Strings of a format from which samples are drawn, if it has as many, and of uuids: more lines than fit in 128K
tokens."""
AHEAD = 1024
"""Strings of a pool that are tokenised together while it is drawn."""
TOKENISE_ALL_FROM = 1 / 16
"""Once samples have needed a larger share of the strings, all are tokenised: the next ones would need the rest."""
OVERDRAW = 1.04
"""Lines are drawn for this many times the tokens wanted, by the mean size of a line: rarely too few."""
CHOICE_CHUNK = 16
"""Strings that are looked up together when those of the needles are chosen."""
ENOUGH = 36
"""Strings, at least, that a sample's lines are made of, where texts have nearly all of the format: the freest. More
would be in the text around the needles at many lengths, fewer would make few lines."""
DISJOINT_KINDS = ({"words", "numbers"}, {"words", "uuids"})
"""Pairs of kinds in which no string of one contains a string of the other."""
CHECKED_LINES = 1 << 9
"""Lines in random order that are checked, once, not to merge with their neighbours."""


class TokenTable:
    """Ids of strings, each between two texts, as rows of a table; tokenised on first use.

    table: (strings, most tokens), 16 bits wide where the vocabulary fits: samples read rows all over it, and a
    smaller table stays in the processor's cache. none: padding after a row's last token. sizes: (strings,) tokens, 0
    where not tokenised yet.
    """

    def __init__(self, tokenizer: Tokenizer, strings: list[str], before: str, after: str):
        self._tokenizer, self._strings, self._before, self._after = tokenizer, strings, before, after
        self.dtype = np.dtype(np.uint16 if tokenizer.vocab_size < 1 << 16 else np.uint32)
        self.none = np.iinfo(self.dtype).max
        self.table, self.sizes = (
            np.full((len(strings), 1), self.none, self.dtype),
            np.zeros(len(strings), dtype=np.uint16),
        )
        self._n_tokenised = 0

    def tokenise(self, numbers: np.ndarray) -> None:
        """Tokenise those of these numbers that are not yet."""
        if self._n_tokenised == len(self.sizes):
            return
        new = np.unique(numbers[self.sizes[numbers] == 0])
        if not len(new):
            return
        if len(new) + self._n_tokenised > TOKENISE_ALL_FROM * len(self.sizes):
            new = np.flatnonzero(self.sizes == 0)
        texts = [f"{self._before}{self._strings[i]}{self._after}" for i in new.tolist()]
        ids, sizes = self._tokenizer.joined_pieces(texts)
        wider = int(sizes.max()) - self.table.shape[1]
        if wider > 0:
            self.table = np.pad(self.table, ((0, 0), (0, wider)), constant_values=self.none)
        used = np.arange(self.table.shape[1]) < sizes[:, None]
        filled = np.full(used.shape, self.none, self.dtype)
        filled[used] = ids
        self.table[new], self.sizes[new] = filled, sizes
        self._n_tokenised += len(new)

    def longest(self, numbers: np.ndarray | None) -> int:
        """Tokens of the longest of these strings, of all of them without numbers."""
        numbers = np.arange(len(self.sizes)) if numbers is None else numbers
        self.tokenise(numbers)
        return int(self.sizes[numbers].max(initial=0))

    def some(self, numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Ids of a few strings that are tokenised, int32."""
        rows = self.table[numbers].astype(np.int32)
        return tuple(row[:size] for row, size in zip(rows, self.sizes[numbers].tolist(), strict=True))


class Pool:
    """Distinct strings of one format that do not merge with `tail` and are not in the wording. number: string -> its
    number.
    """

    def __init__(self, tokenizer: Tokenizer, form: StringFormat, tail: str, wording: str, names: tuple[str, ...]):
        source = candidates(form, Stream("pool", str(form), *names), tokenizer, AHEAD)
        wording = tokenizer.expressed(wording)
        fit = (
            string for string in source if string not in wording and (not tail or tokenizer.keeps_apart(string, tail))
        )
        self.form, self.strings = form, list(islice(fit, UUID_POOL if form.kind == "uuids" else STRING_POOL))
        self.number = {string: i for i, string in enumerate(self.strings)}
        self.sizes = sorted({len(string) for string in self.strings})
        self._text = "\n" + "\n".join(self.strings) + "\n"
        self._tokenizer, self._rows = tokenizer, {}
        self._found: WeakKeyDictionary[TokenStream, Occurrences] = WeakKeyDictionary()

    def rows(self, before: str, after: str) -> TokenTable:
        """Ids of its strings between two texts: the same object for the same texts."""
        name = (before, after)
        self._rows[name] = self._rows.get(name) or TokenTable(self._tokenizer, self.strings, before, after)
        return self._rows[name]

    def occurrences(self, stream: TokenStream) -> Occurrences:
        """Where its strings occur in a text, found once."""
        if stream not in self._found:
            self._found[stream] = stream.occurrences(self.number)
        return self._found[stream]

    def sharing(self, strings: Mapping[str, StringFormat]) -> list[int]:
        """Numbers of the strings here that contain one of `strings` (with their formats) or are contained in it."""
        shared: list[int] = []
        for string, form in strings.items():
            if string in self.number:
                shared.append(self.number[string])
            if form == self.form and (form.kind == "words" or len(self.sizes) == 1):
                continue  # equal or disjoint: no word contains another, and no string another of its length
            if {form.kind, self.form.kind} in DISJOINT_KINDS:
                continue
            shared += self._overlapping(string)
        return shared

    def _overlapping(self, string: str) -> list[int]:
        containing, at = [], self._text.find(string)
        while at >= 0:
            left, right = self._text.rfind("\n", 0, at) + 1, self._text.index("\n", at)
            containing.append(self.number[self._text[left:right]])
            at = self._text.find(string, right)
        inside = {string[a : a + size] for size in self.sizes for a in range(len(string) - size + 1)}
        return containing + [self.number[part] for part in inside if part in self.number]


def pool_of(tokenizer: Tokenizer, form: StringFormat, tail: str, wording: str, names: tuple[str, ...]) -> Pool:
    """The pool of a format, drawn once; for all tails where the tokenizer never merges them with a string."""
    return _pool(tokenizer, form, tail if tokenizer.fuses(tail) else "", wording, names)


_pool = lru_cache(maxsize=64)(Pool)


class LineBank:
    """Pools of keys and values in one wording. A line is `ask` with the key, the value and the tail."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        key: StringFormat,
        value: StringFormat,
        ask: str,
        tail: str,
        wording: str,
        *names: str,
    ):
        """ask: has `{key}` after a space. wording: text that no string may be a part of. names: keys of the pools'
        draws.
        """
        self.tokenizer = tokenizer
        self.keys = pool_of(tokenizer, key, tail, wording, names)
        self.values = pool_of(tokenizer, value, tail, wording, names)
        before, after = ask.split("{key}")
        around = [EMPTY, EMPTY, tokenizer.piece(tail)]  # before the key, after it, after the value
        if tokenizer.splits_at_spaces:  # words next to a key have the same ids with every key
            if before != " ":
                around[0], before = tokenizer.piece(before[:-1]), " "
            if after and (after[0] == " " or not tokenizer.fuses(after)):
                around[1], after = tokenizer.piece(after), ""
        self._key_rows, self._value_rows = self.keys.rows(before, after), self.values.rows(" ", "")
        self._around = [ids.astype(self._key_rows.dtype) for ids in around]
        self._mean_tokens: float | None = None

    def sample(self, draw: Draws) -> "LineSample":
        """The strings of one sample."""
        return LineSample(self, draw)

    def lines(self, keys: np.ndarray, values: np.ndarray, tokens: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The lines of (n,) keys and values by number: their ids, and (m + 1,) where each begins and the last ends.

        tokens: only as many lines as fit in this many tokens; None: all of them.
        """
        self._key_rows.tokenise(keys)
        self._value_rows.tokenise(values)
        used = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum(
            self._key_rows.sizes[keys] + self._value_rows.sizes[values] + sum(map(len, self._around)),
            dtype=np.int64,
            out=used[1:],
        )
        fit = len(keys) if tokens is None else int(np.searchsorted(used, tokens, side="right")) - 1
        before, after, tail = (np.broadcast_to(ids, (fit, len(ids))) for ids in self._around)
        key, value = (
            np.take(r.table, i[:fit], axis=0) for r, i in ((self._key_rows, keys), (self._value_rows, values))
        )
        ids = np.concatenate([before, key, after, value, tail], axis=1).ravel()
        return ids[ids != self._key_rows.none].astype(np.int32), used[: fit + 1]

    def longest(self, keys: np.ndarray | None, values: np.ndarray | None) -> tuple[int, int]:
        """Tokens of the longest `ask` and of the longest value, of these keys and values or of all."""
        before, after, _ = map(len, self._around)
        return before + self._key_rows.longest(keys) + after, self._value_rows.longest(values)

    @cached_property
    def longest_of_all(self) -> tuple[int, int]:
        """Tokens of the longest `ask` and of the longest value that a line may have."""
        return self.longest(None, None)

    def some_values(self, numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Ids of a few values, by number, that are in lines."""
        return self._value_rows.some(numbers)

    @property
    def mean_tokens(self) -> float:
        """Mean tokens of a line. Raises EpisodeError for a tokenizer that merges neighbouring lines."""
        if self._mean_tokens is None:
            self._mean_tokens = self._checked()
        return self._mean_tokens

    def _checked(self) -> float:
        """Mean tokens of some lines in random order, which are encoded again as one text."""
        n = min(len(self.keys.strings), len(self.values.strings), CHECKED_LINES)
        if not n:
            raise EpisodeError("formats", "no line", "a format with distinct strings")
        draw = Stream("shown", str(self.keys.form), str(self.values.form))
        ids, _ = self.lines(
            draw.permutation(len(self.keys.strings))[:n], draw.permutation(len(self.values.strings))[:n], None
        )
        if not self.tokenizer.same_after_round_trip(ids):
            raise EpisodeError("data.tokenizer", "one that merges neighbouring lines", "one that keeps words apart")
        return len(ids) / n


line_bank = lru_cache(maxsize=64)(LineBank)
"""The bank of a wording, built once."""


class LineSample:
    """The strings of one sample: first those of its needles, then those of the distractor lines."""

    def __init__(self, bank: LineBank, draw: Draws):
        self._bank = bank
        one = bank.keys is bank.values
        self._front = LazyPermutation(draw("strings", str(bank.keys.form)), len(bank.keys.strings))
        self._back = (
            self._front if one else LazyPermutation(draw("strings", str(bank.values.form)), len(bank.values.strings))
        )
        self._most = min(self._front.n, self._back.n) // (2 if one else 1)
        self._forms: dict[str, StringFormat] = {}
        self._barred: dict[Pool, np.ndarray] = {}

    def keys(self, n: int, unique: UniqueStrings) -> list[str]:
        """n keys that occur nowhere in the haystack. Raises EpisodeError when there are fewer."""
        return self._chosen(self._bank.keys, self._key, n, unique, "formats.key")

    def values(self, n: int, unique: UniqueStrings) -> list[str]:
        """n values, likewise."""
        return self._chosen(self._bank.values, self._value, n, unique, "formats.value")

    def run(self, tokens: int) -> Filled:
        """Lines of strings other than those chosen, from the same ones, as many as fit in `tokens` tokens. Raises
        EpisodeError when there are fewer.
        """
        count = 8 + int(OVERDRAW * tokens / self._bank.mean_tokens)
        while True:
            keys, values = self._others(count)
            ids, ends = self._bank.lines(keys, values, tokens)
            if len(ends) - 1 < len(keys):
                return self._filled(ids, ends, values)
            if len(keys) < count:
                raise _exhausted(len(keys))
            count *= 2

    def some(self, keys: list[str], values: list[str]) -> Filled:
        """The lines of keys and values that were chosen."""
        numbers = self._numbers(keys, values)
        return self._filled(*self._bank.lines(*numbers, None), numbers[1])

    def longest(self, keys: list[str], values: list[str]) -> tuple[int, int]:
        """Tokens of the longest `ask` and of the longest value, of keys and values that were chosen."""
        return self._bank.longest(*self._numbers(keys, values))

    @property
    def longest_of_all(self) -> tuple[int, int]:
        """Likewise of all that a line may have, so that it does not depend on which lines fit."""
        return self._bank.longest_of_all

    def _numbers(self, keys: list[str], values: list[str]) -> tuple[np.ndarray, np.ndarray]:
        one, other = (
            np.array([pool.number[string] for string in strings], dtype=np.int64)
            for pool, strings in ((self._bank.keys, keys), (self._bank.values, values))
        )
        return one, other

    def _others(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values by number, n or as many as there are: in drawn order, so that more begin with fewer."""
        pools = self._bank.keys, self._bank.values
        excluded = [
            np.append(self._barred.get(pool, EMPTY), pool.sharing(self._forms)).astype(np.int64) for pool in pools
        ]
        places = np.arange(min(n + sum(map(len, excluded)), self._most))
        keys, values = (
            _without(numbers, out, len(pool.strings))
            for pool, numbers, out in zip(pools, (self._key(places), self._value(places)), excluded, strict=True)
        )
        n = min(n, len(keys), len(values))
        return keys[:n], values[:n]

    def _filled(self, ids: np.ndarray, ends: np.ndarray, values: np.ndarray) -> Filled:
        return Filled(ids, ends, self._bank.some_values(values[: min(len(ends) - 1, MAX_CANDIDATES)]))

    def _chosen(
        self, pool: Pool, at: Callable[[np.ndarray], np.ndarray], n: int, unique: UniqueStrings, key: str
    ) -> list[str]:
        n_all = len(pool.strings)  # strings taken from the other side are not free
        if pool not in self._barred:
            roles = 2 if self._bank.keys is self._bank.values else 1
            self._barred[pool] = unique.barred(pool.occurrences, n_all, roles * max(ENOUGH, n))
        left = np.ones(n_all, dtype=bool)
        left[self._barred[pool]] = False

        def source() -> Iterator[str]:
            for first in range(0, n_all, CHOICE_CHUNK):
                numbers = at(np.arange(first, min(first + CHOICE_CHUNK, n_all)))
                yield from (pool.strings[i] for i in numbers[left[numbers]].tolist())

        error = EpisodeError(key, f"{n} distinct {pool.form}", f"a longer format, {FEWER}")
        strings = unique.next(source(), n, error)
        self._forms |= dict.fromkeys(strings, pool.form)
        return strings

    def _key(self, places: np.ndarray) -> np.ndarray:
        return self._front(places)

    def _value(self, places: np.ndarray) -> np.ndarray:
        return self._back(self._back.n - 1 - places)


def _without(numbers: np.ndarray, out: np.ndarray, n: int) -> np.ndarray:
    """Numbers below n without the few in `out`: each run between these is copied in one piece."""
    dropped = np.zeros(n, dtype=bool)
    dropped[out] = True
    at = [-1, *np.flatnonzero(dropped[numbers]).tolist(), len(numbers)]
    return np.concatenate([numbers[a + 1 : b] for a, b in zip(at, at[1:], strict=False)])


def _exhausted(n: int) -> EpisodeError:
    given = f"a haystack of more than {n} needle-like lines"
    return EpisodeError("formats", given, "word_pairs, more digits, uuids, or a shorter length")
