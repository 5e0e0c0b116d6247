"""Haystacks of document kinds other than prose: Python source, JSON, CSV, Markdown tables and logs.

    python    def resolve_path(name, *, strict=False): ...        the standard library of the running interpreter
    json      {"id": 4821, "customer": {"name": "Ana Ruiz", ...}, "items": [...]}      one object per line
    csv       4821, 2021-05-17, Ana Ruiz, Porto Alegre, 12, 18.50, came early and paid at once
    markdown  | 4821 | oil filter | north depot | 12 | 18.50 |      tables under headings
    logs      2021-05-17 04:11:09.412 WARN [worker-3] cache: evicted 312 entries (status=200) for 10.2.14.7

Each kind has two texts, one for training and one for probing: Python source by file, the others by draw. All but
Python source are generated from named random streams, so they are the same everywhere, and have no noun of
`assets/nouns.txt` and no number of more than four digits, so that keys and values are the same there as elsewhere.
Python source differs between interpreter versions; a record's task digest covers the tokens of its haystack, so
results of different versions never mix.
"""

import json
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar, get_args

from lcprobe.errors import EpisodeError, unknown_name
from lcprobe.seeds import Stream
from lcprobe.tasks.names import DOCUMENTS, Split
from lcprobe.tasks.text.tokenizer import read_words

T = TypeVar("T")
SPLITS: tuple[Split, ...] = get_args(Split)

DOCUMENT_CHARS = 1_500_000
"""Characters of each: tokenising a million takes about 0.9 s, and set-up shall stay below 2 s."""
SKIPPED_FOLDERS = {
    "test", "tests", "encodings", "idlelib", "lib2to3", "turtledemo", "site-packages",
    "dist-packages", "__pycache__",
}  # fmt: skip
"""Folders of the standard library with tables, other packages, or code that distributions leave out."""
MIN_SPACES = 0.06
"""Spaces per character of a library file, at least: others are tables."""

FIRST_NAMES = (
    "Ana", "Bruno", "Chidi", "Dana", "Emil", "Farah", "Goran", "Hana", "Ivan", "Jun", "Kofi", "Lena", "Milo",
    "Nadia",
)  # fmt: skip
SURNAMES = (
    "Ruiz", "Okafor", "Lindt", "Marsh", "Novak", "Petit", "Quinn", "Rossi", "Silva", "Tanaka", "Umar", "Vogel",
    "Weiss",
)  # fmt: skip
CITIES = (
    "Porto Alegre", "New Haven", "San Remo", "Cape Coast", "Le Mans", "Baton Rouge", "Den Haag", "Bad Ischl",
    "Fort Kent",
)  # fmt: skip
GOODS = ("oil filter", "steel bolt", "desk lamp", "wall clock", "hand drill", "rain coat", "water pump", "copy paper")
DEPOTS = ("north depot", "south depot", "east gate", "west gate", "main hall", "back yard", "upper floor", "old mill")
ORDER_STATES = ("shipped", "open", "paid", "returned", "on hold", "cancelled")
LOG_LEVELS = ("INFO ", "INFO ", "INFO ", "DEBUG", "DEBUG", "WARN ", "ERROR")
LOG_EVENTS = (
    "scheduler: job {} finished in {} ms (status={}, retries={})",
    "cache: evicted {} entries after {} s, {} left of {}",
    "http: GET /api/v2/orders/{} took {} ms (status={}, bytes={})",
    "db: query {} returned {} rows from shard {} of {}",
    "auth: session {} of user {} renewed for {} s after {} tries",
    "queue: {} messages waiting, {} in flight, {} failed, oldest {} s",
)


class _Numbers:
    """Hundreds of thousands of small draws: one named stream, cut into integers."""

    def __init__(self, *names: str):
        self._stream: Stream = Stream("container", *names)
        self._left: Iterator[int] = iter(())

    def below(self, high: int) -> int:
        """An integer in [0, high), high far below 2^40."""
        value = next(self._left, None)
        if value is None:
            self._left = iter(self._stream.integers(1 << 40, 4096).tolist())
            value = next(self._left)
        return value % high

    def pick(self, items: Sequence[T]) -> T:
        """One item."""
        return items[self.below(len(items))]


def document_text(name: str, split: Split = "probe") -> str:
    """About DOCUMENT_CHARS characters of one kind, for episodes of a split. Raises ConfigError for an unknown one,
    EpisodeError without library source.
    """
    if name not in DOCUMENTS:
        raise unknown_name("haystack", name, DOCUMENTS)
    if name == "python":
        return _python(split)
    record, n, words = RECORDS[name], _Numbers(name, split), read_words("fillers")
    parts, size = [], 0
    while size < DOCUMENT_CHARS:
        parts.append(record(n, words))
        size += len(parts[-1])
    return "".join(parts)


def _python(split: Split) -> str:
    """Library files in order of their paths, until the limit; plain ASCII only, as nearly all are, and no mere
    tables. Every second file is of the one split, the rest of the other.

    Indented by tabs: a vocabulary trained on prose spends a token on every space, and windows must begin at words.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    parts, size = [], 0
    for path in islice(_sources(root), SPLITS.index(split), None, len(SPLITS)):
        raw = path.read_bytes()
        text = raw.decode().replace("\r\n", "\n").replace("    ", "\t") if raw.isascii() else ""
        if text.count(" ") > MIN_SPACES * len(text):
            parts.append(text)
            size += len(text)
        if size >= DOCUMENT_CHARS:
            return "\n".join(parts)[:DOCUMENT_CHARS]
    if not parts:
        raise EpisodeError("haystack", "python", f"an interpreter with its library's source (none in {root})")
    return "\n".join(parts)


def _sources(folder: Path) -> Iterator[Path]:
    """Python files in order of their paths, without those that name this machine (_sysconfigdata*.py, config-*)."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name in SKIPPED_FOLDERS or path.name.startswith(("_sysconfigdata", "config-")):
            continue
        if path.is_dir():
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def _json(n: _Numbers, words: list[str]) -> str:
    items = [
        {"name": n.pick(GOODS), "quantity": 1 + n.below(40), "price": n.below(20_000) / 100, "gift": n.below(4) == 0}
        for _ in range(1 + n.below(3))
    ]
    order = {
        "id": 1000 + n.below(9000),
        "created": f"{_date(n)} {_clock(n)}",
        "customer": {"name": _name(n), "address": {"city": n.pick(CITIES), "floor": n.below(9)}},
        "items": items,
        "status": n.pick(ORDER_STATES),
        "note": _phrase(n, words),
        "events": [{"at": _clock(n), "text": _phrase(n, words)} for _ in range(1 + n.below(2))],
    }
    return json.dumps(order) + "\n"


def _csv(n: _Numbers, words: list[str]) -> str:
    amount = f"{n.below(20_000) / 100:.2f}"
    place = f"{_name(n)}, {n.pick(CITIES)}"
    return f"{1000 + n.below(9000)}, {_date(n)}, {place}, {n.below(60)}, {amount}, {_phrase(n, words)}\n"


def _markdown(n: _Numbers, words: list[str]) -> str:
    rows = "".join(
        f"| {1000 + n.below(9000)} | {n.pick(GOODS)} | {n.pick(DEPOTS)} | {n.below(60)} "
        f"| {n.below(20_000) / 100:.2f} |\n"
        for _ in range(4 + n.below(12))
    )
    lead = f"## Stock of the {n.pick(DEPOTS)} on {_date(n)}\n\nCounted by {_name(n)}: {_phrase(n, words)}.\n\n"
    return f"{lead}| id | item | place | count | price |\n| --- | --- | --- | --- | --- |\n{rows}\n"


def _logs(n: _Numbers, words: list[str]) -> str:
    event = n.pick(LOG_EVENTS).format(1 + n.below(9999), n.below(900), 100 + n.below(500), n.below(9999))
    source = f"10.{n.below(256)}.{n.below(256)}.{n.below(256)}"
    time = f"{_date(n)} {_clock(n)}.{n.below(1000):03d}"
    return f"{time} {n.pick(LOG_LEVELS)} [worker-{n.below(16)}] {event} for {source}\n"


def _date(n: _Numbers) -> str:
    return f"{2015 + n.below(10)}-{1 + n.below(12):02d}-{1 + n.below(28):02d}"


def _clock(n: _Numbers) -> str:
    return f"{n.below(24):02d}:{n.below(60):02d}:{n.below(60):02d}"


def _name(n: _Numbers) -> str:
    return f"{n.pick(FIRST_NAMES)} {n.pick(SURNAMES)}"


def _phrase(n: _Numbers, words: list[str]) -> str:
    return " ".join(n.pick(words) for _ in range(4 + n.below(7)))


RECORDS: dict[str, Callable[[_Numbers, list[str]], str]] = {
    "json": _json,
    "csv": _csv,
    "markdown": _markdown,
    "logs": _logs,
}
