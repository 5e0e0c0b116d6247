"""Episodes on disk: built once, then read by the next model, process or machine, and comparable by digest.

    <unit>.safetensors    tokens (n,) uint16 or uint32, sizes (m,) int64: every episode's ids, candidates and own ends
                          sha256 (32,) uint8: of everything else
                          metadata, one JSON text: `facts`, what the unit depends on, and `episodes`,
                          all other fields,
                          with the digests that records have

The name is a digest of everything that the episodes depend on, the source of the tasks included, so no file is ever
out of date: a change gives another name. Files are written atomically, and one that does not match its digest is
built again.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lcprobe.files import digest_bytes, digest_json, write_atomic
from lcprobe.tasks.episode import Episode, Query

log = logging.getLogger(__name__)
STRUCTURED_FIELDS = ("ids", "queries", "candidates", "own")
"""Fields that are not plain numbers and strings; the arrays among them are in `tokens`."""


@dataclass(frozen=True)
class EpisodeCache:
    """A folder of at most `limit` bytes; the least recently used files are deleted first."""

    folder: Path
    limit: int

    def read(self, facts: dict[str, Any]) -> list[Episode] | None:
        """The episodes of a unit, or None if there is no file, or a damaged one, which is logged."""
        path = self.path(facts)
        try:
            with safe_open(path, framework="numpy") as file:
                text = (file.metadata() or {}).get("lcprobe", "")
                tokens, sizes, digest = (file.get_tensor(name) for name in ("tokens", "sizes", "sha256"))
            if digest.tobytes() != _digest(text, tokens, sizes):
                raise ValueError("it does not match its digest")
            episodes = _unpacked(json.loads(text)["episodes"], tokens, sizes)
            with suppress(OSError):  # a folder of somebody else: it is not ours to say what was used last
                os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError) as error:
            log.warning("episodes are built again: %s is damaged (%s)", path.name, error)
            return None
        return episodes

    def write(self, facts: dict[str, Any], episodes: Sequence[Episode]) -> None:
        """Write the episodes of a unit, if they are smaller than the limit. A folder that cannot be written to is
        logged.
        """
        plain, arrays = _packed(episodes)
        tokens, sizes = np.concatenate(arrays), np.array([len(a) for a in arrays], dtype=np.int64)
        tokens = tokens.astype(np.uint16 if tokens.max() < 1 << 16 else np.uint32)
        text = json.dumps(
            {"facts": facts, "episodes": plain}, separators=(",", ":"), default=lambda number: number.item()
        )
        digest = np.frombuffer(_digest(text, tokens, sizes), dtype=np.uint8)
        content = save({"tokens": tokens, "sizes": sizes, "sha256": digest}, {"lcprobe": text})
        if len(content) > self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._shrink(self.limit - len(content))
            write_atomic(self.path(facts), content)
        except OSError as error:
            log.warning("episodes are not kept in %s (%s)", self.folder, error)

    def path(self, facts: dict[str, Any]) -> Path:
        """The file of a unit's episodes."""
        return self.folder / f"{digest_json(facts)[:32]}.safetensors"

    def _shrink(self, max_bytes: int) -> None:
        files = [(path, path.stat()) for path in self.folder.iterdir()]  # including what a killed process left behind
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda f: f[1].st_mtime_ns):
            if total <= max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _digest(text: str, tokens: np.ndarray, sizes: np.ndarray) -> bytes:
    return bytes.fromhex(digest_bytes(text.encode(), str(tokens.dtype).encode(), tokens.tobytes(), sizes.tobytes()))


def _packed(episodes: Sequence[Episode]) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """All plain fields, and all arrays in the order in which `_unpacked` reads them."""
    plain, arrays = [], []
    for episode in episodes:
        arrays.append(episode.ids)
        queries = []
        for query in episode.queries:
            arrays += [*query.candidates, *([] if query.own is None else [query.own])]
            queries.append(_plain(query) | {"candidates": len(query.candidates), "own": query.own is not None})
        plain.append(_plain(episode) | {"queries": queries, "digest": episode.digest})
    return plain, arrays


def _plain(value: Episode | Query) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in STRUCTURED_FIELDS}


def _unpacked(plain: list[dict[str, Any]], tokens: np.ndarray, sizes: np.ndarray) -> list[Episode]:
    ends = np.cumsum(sizes).tolist()
    pieces = iter(tokens[end - size : end].astype(np.int32) for end, size in zip(ends, sizes.tolist(), strict=True))
    return [_episode(given, pieces) for given in plain]


def _episode(given: dict[str, Any], pieces: Iterator[np.ndarray]) -> Episode:
    ids = next(pieces)
    queries = tuple(_query(query, pieces) for query in given.pop("queries"))
    needles = tuple((start, stop) for start, stop in given.pop("needles"))
    del given["digest"]
    return Episode(ids=ids, queries=queries, needles=needles, **given)


def _query(given: dict[str, Any], pieces: Iterator[np.ndarray]) -> Query:
    candidates = tuple(next(pieces) for _ in range(given.pop("candidates")))
    own = next(pieces) if given.pop("own") else None
    return Query(**given | {"candidates": candidates, "own": own, "via": tuple(given["via"])})
