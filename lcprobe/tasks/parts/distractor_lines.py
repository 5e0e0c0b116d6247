"""Lines that look like needles: keys and values dealt anew for every sample out of one pool, those that are asked for first.

Who has read the contexts of other samples must not know the asked line by never having seen it. So the strings that are asked
for and those that only fill are dealt from the same pool by the same shuffle, and a key has another value in every sample: for
a given context, each of its lines is as likely to be the asked one as any other, whatever other contexts hold.

A shuffle is a keyed permutation known at any place at once (`Deal`), so that a longer sample begins with a shorter one's
strings. Keys are dealt from its front and values from its back: of one and the same format the two never meet.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Draws, LazyPermutation, Stream
from lcprobe.tasks.episode import MAX_CANDIDATES
from lcprobe.tasks.parts.layout import EMPTY
from lcprobe.tasks.parts.placement import FEWER, Filled, UniqueStrings
from lcprobe.tasks.text.formats import StringFormat, candidates
from lcprobe.tasks.text.tokenizer import Tokenizer

POOL, UUIDS = 1 << 15, 1 << 13
"""Strings of a format that samples are dealt from, if it has as many, and of long ones: more lines than 128K tokens hold."""
MANY = 1 / 16
"""Where samples have needed a larger share of the strings, all are tokenised: the next ones would need the rest."""
SPARE = 1.04
"""Lines are dealt for so many times the tokens wanted: by the sizes that lines have on average, that is seldom too few."""
CHUNK = 16
"""Strings looked at together when those that are asked for are chosen."""
WITHOUT_COMMON = ({"words", "numbers"}, {"words", "uuids"})
"""Kinds of which no string contains one of the other."""
SHOWN = 1 << 9
"""Lines in random order that are shown, once, to stand side by side without merging."""


class TokenTable:
    """Ids of strings, each between two texts, as rows of a table; tokenised when first asked for.

    table: (strings, most tokens), of 16 bits where these hold the vocabulary: what a sample takes out lies all over it, and a
    smaller one stays in a processor's cache. none: what stands after a row's last. sizes: (strings,) tokens, 0 of what is not
    known yet.
    """

    def __init__(self, tokenizer: Tokenizer, strings: list[str], before: str, after: str):
        self._tokenizer, self._strings, self._before, self._after = tokenizer, strings, before, after
        self.dtype = np.dtype(np.uint16 if tokenizer.vocab_size < 1 << 16 else np.uint32)
        self.none = np.iinfo(self.dtype).max
        self.table, self.sizes = (
            np.full((len(strings), 1), self.none, self.dtype),
            np.zeros(len(strings), dtype=np.uint16),
        )
        self._known = 0

    def know(self, numbers: np.ndarray) -> None:
        """Fill in the rows of these numbers that were not asked for yet."""
        if self._known == len(self.sizes):
            return
        new = np.unique(numbers[self.sizes[numbers] == 0])
        if not len(new):
            return
        if len(new) + self._known > MANY * len(self.sizes):
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
        self._known += len(new)

    def some(self, numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Ids of each of a few strings that are known, int32."""
        rows = self.table[numbers].astype(np.int32)
        return tuple(row[:size] for row, size in zip(rows, self.sizes[numbers].tolist(), strict=True))


class Pool:
    """Distinct strings of one format, each apart from `tail` and not in the wording. number: of each string."""

    def __init__(self, tokenizer: Tokenizer, form: StringFormat, tail: str, wording: str, names: tuple[str, ...]):
        source = candidates(form, Stream("pool", str(form), *names), tokenizer)
        fit = (
            string for string in source if string not in wording and (not tail or tokenizer.keeps_apart(string, tail))
        )
        self.form, self.strings = form, list(islice(fit, UUIDS if form.kind == "uuids" else POOL))
        self.number = {string: i for i, string in enumerate(self.strings)}
        self.sizes = sorted({len(string) for string in self.strings})
        self._text = "\n" + "\n".join(self.strings) + "\n"
        self._tokenizer, self._rows = tokenizer, {}

    def rows(self, before: str, after: str) -> TokenTable:
        """Its strings between two texts as ids: the same object for the same texts."""
        name = (before, after)
        self._rows[name] = self._rows.get(name) or TokenTable(self._tokenizer, self.strings, before, after)
        return self._rows[name]

    def sharing(self, strings: Mapping[str, StringFormat]) -> list[int]:
        """Numbers of the strings here that contain one of `strings`, each of its format, or lie inside it."""
        found: list[int] = []
        for string, form in strings.items():
            if string in self.number:
                found.append(self.number[string])
            if form == self.form and (form.kind == "words" or len(self.sizes) == 1):
                continue  # the same or apart: no word contains another, and no string one of its length
            if {form.kind, self.form.kind} in WITHOUT_COMMON:
                continue
            found += self._overlapping(string)
        return found

    def _overlapping(self, string: str) -> list[int]:
        found, at = [], self._text.find(string)
        while at >= 0:
            left, right = self._text.rfind("\n", 0, at) + 1, self._text.index("\n", at)
            found.append(self.number[self._text[left:right]])
            at = self._text.find(string, right)
        inside = {string[a : a + size] for size in self.sizes for a in range(len(string) - size + 1)}
        return found + [self.number[part] for part in inside if part in self.number]


def pool_of(tokenizer: Tokenizer, form: StringFormat, tail: str, wording: str, names: tuple[str, ...]) -> Pool:
    """The pool of a format, drawn once: for all tails where the tokenizer keeps them apart from any string."""
    return _pool(tokenizer, form, tail if tokenizer.fuses(tail) else "", wording, names)


_pool = lru_cache(maxsize=64)(Pool)


class LineBank:
    """Pools of keys and values of one wording. A line is the key as `ask` words it, the value and the tail."""

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
        """ask: has `{key}` after a space. wording: text that no string may be a part of. names: of the pools."""
        self.tokenizer = tokenizer
        self.keys = pool_of(tokenizer, key, tail, wording, names)
        self.values = pool_of(tokenizer, value, tail, wording, names)
        before, after = ask.split("{key}")
        around = [EMPTY, EMPTY, tokenizer.piece(tail)]  # before the key, after it, after the value
        if tokenizer.splits_at_spaces:  # the words beside a key have the same ids with every key
            if before != " ":
                around[0], before = tokenizer.piece(before[:-1]), " "
            if after and (after[0] == " " or not tokenizer.fuses(after)):
                around[1], after = tokenizer.piece(after), ""
        self._key_rows, self._value_rows = self.keys.rows(before, after), self.values.rows(" ", "")
        self._around = [ids.astype(self._key_rows.dtype) for ids in around]
        self._typical: float | None = None

    def sample(self, draw: Draws) -> "LineSample":
        """A sample's strings."""
        return LineSample(self, draw)

    def lines(self, keys: np.ndarray, values: np.ndarray, tokens: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The lines of (n,) keys and values by number: their ids, and (m + 1,) where each begins and the last ends.

        tokens: no more lines than this many tokens hold; null: all of them.
        """
        self._key_rows.know(keys)
        self._value_rows.know(values)
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

    def some_values(self, numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """Ids of the values of a few numbers that are in lines."""
        return self._value_rows.some(numbers)

    @property
    def typical(self) -> float:
        """Tokens of a line on average. Raises EpisodeError for a tokenizer that merges neighbouring lines."""
        if self._typical is None:
            self._typical = self._shown()
        return self._typical

    def _shown(self) -> float:
        """Some lines in random order are encoded again as one text: tokens of one on average."""
        n = min(len(self.keys.strings), len(self.values.strings), SHOWN)
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
    """The strings of one sample: first those of its needles, then those of the lines that fill."""

    def __init__(self, bank: LineBank, draw: Draws):
        self._bank = bank
        one = bank.keys is bank.values
        self._front = LazyPermutation(draw("strings", str(bank.keys.form)), len(bank.keys.strings))
        self._back = (
            self._front if one else LazyPermutation(draw("strings", str(bank.values.form)), len(bank.values.strings))
        )
        self._most = min(self._front.n, self._back.n) // (2 if one else 1)
        self._forms: dict[str, StringFormat] = {}

    def keys(self, n: int, unused: UniqueStrings) -> list[str]:
        """n keys that stand nowhere in the haystack. Raises EpisodeError when there are not as many."""
        return self._chosen(self._bank.keys, self._key, n, unused, "formats.key")

    def values(self, n: int, unused: UniqueStrings) -> list[str]:
        """n values, likewise."""
        return self._chosen(self._bank.values, self._value, n, unused, "formats.value")

    def run(self, tokens: int) -> Filled:
        """Lines of other strings than those chosen, as many as `tokens` tokens hold. Raises EpisodeError when there are fewer."""
        count = 8 + int(SPARE * tokens / self._bank.typical)
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
        numbers = [
            np.array([pool.number[string] for string in strings], dtype=np.int64)
            for pool, strings in ((self._bank.keys, keys), (self._bank.values, values))
        ]
        return self._filled(*self._bank.lines(numbers[0], numbers[1], None), numbers[1])

    def _others(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values by number, n or as many as there are: in dealt order, so that more begin with fewer."""
        pools = self._bank.keys, self._bank.values
        hit = [pool.sharing(self._forms) for pool in pools]
        places = np.arange(min(n + sum(map(len, hit)), self._most))
        keys, values = (
            _without(numbers, out, len(pool.strings))
            for pool, numbers, out in zip(pools, (self._key(places), self._value(places)), hit, strict=True)
        )
        n = min(n, len(keys), len(values))
        return keys[:n], values[:n]

    def _filled(self, ids: np.ndarray, ends: np.ndarray, values: np.ndarray) -> Filled:
        return Filled(ids, ends, self._bank.some_values(values[: min(len(ends) - 1, MAX_CANDIDATES)]))

    def _chosen(
        self, pool: Pool, at: Callable[[np.ndarray], np.ndarray], n: int, unused: UniqueStrings, key: str
    ) -> list[str]:
        n_all = len(pool.strings)  # what is taken already, from the other side, is not free

        def source() -> Iterator[str]:
            for first in range(0, n_all, CHUNK):
                yield from (pool.strings[i] for i in at(np.arange(first, min(first + CHUNK, n_all))).tolist())

        found = unused.first(source(), n, EpisodeError(key, f"{n} distinct {pool.form}", f"a longer format, {FEWER}"))
        self._forms |= dict.fromkeys(found, pool.form)
        return found

    def _key(self, places: np.ndarray) -> np.ndarray:
        return self._front(places)

    def _value(self, places: np.ndarray) -> np.ndarray:
        return self._back(self._back.n - 1 - places)


def _without(numbers: np.ndarray, out: list[int], n: int) -> np.ndarray:
    """Numbers below n that are not in `out`, which are few: what lies between them is copied in one piece."""
    dropped = np.zeros(n, dtype=bool)
    dropped[out] = True
    at = [-1, *np.flatnonzero(dropped[numbers]).tolist(), len(numbers)]
    return np.concatenate([numbers[a + 1 : b] for a, b in zip(at, at[1:], strict=False)])


def _exhausted(n: int) -> EpisodeError:
    given = f"a haystack of more than {n} needle-like lines"
    return EpisodeError("formats", given, "word_pairs, more digits, uuids, or a shorter length")
