"""What a W&B folder's log has: whether its run was begun, how far its training goes, and what else it tells.

A log is records in the framing of LevelDB's logs: after a header of 7 bytes, blocks of 32 KiB of pieces, each with
checksum, length (2 bytes, little endian) and kind (whole, first, middle or last of a record). A torn end is left out.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER, BLOCK, PIECE_HEADER = 7, 32 * 1024, 7
WHOLE, FIRST, LAST = 1, 2, 4


@dataclass(frozen=True)
class Logged:
    """losses: of training, by tokens. names: of metrics and of the summary, without W&B's own. exit_code: None where
    the run was not closed: its process was killed, or goes on."""

    losses: Mapping[float, float] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    exit_code: int | None = None

    @property
    def tokens(self) -> float:
        """How far training goes; -1 without rows of training."""
        return max(self.losses, default=-1)

    def replaces(self, older: "Logged") -> bool:
        """Whether nothing is lost where this newer log of a run is sent instead of an older one. Another training,
        which was begun anew, replaces the older one's however short it is."""
        last = self.losses.get(self.tokens, math.nan)
        before = older.losses.get(self.tokens, math.nan)
        if self.tokens in older.losses and not math.isclose(last, before) and math.isfinite(last + before):
            return True
        if self.tokens != older.tokens:
            return self.tokens > older.tokens
        return self.exit_code == 0 or self.names >= older.names


def read_log(log: Path) -> Logged | None:
    """What a log has; None without the record of a run: nothing can be sent of it."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    begun, losses, names, exit_code = False, {}, set[str](), None
    for piece in records_in(log.read_bytes()):
        try:
            record = wandb_internal_pb2.Record.FromString(piece)  # pyright: ignore[reportAttributeAccessIssue]  generated code
        except DecodeError:
            break
        begun = begun or record.HasField("run")
        if record.HasField("history"):
            row = {item.key or ".".join(item.nested_key): item for item in record.history.item}
            names |= set(row)
            if "tokens" in row and "train/loss" in row:
                losses[_number(row["tokens"])] = _number(row["train/loss"])
        elif record.HasField("summary"):
            names |= {item.key or ".".join(item.nested_key) for item in record.summary.update}
        elif record.HasField("exit"):
            exit_code = record.exit.exit_code
    if not begun:
        return None
    return Logged(losses, frozenset(name for name in names if not name.startswith("_")), exit_code)


def records_in(data: bytes) -> Iterator[bytes]:
    """The complete records of a log, without their checksums being checked: W&B's client does when it sends them."""
    at, parts = HEADER, []
    while at + PIECE_HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < PIECE_HEADER:  # no room for a piece: zeros
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        piece = data[at + PIECE_HEADER : at + PIECE_HEADER + length]
        at += PIECE_HEADER + length
        if kind not in range(WHOLE, LAST + 1) or len(piece) < length:
            return
        parts = [piece] if kind in (WHOLE, FIRST) else [*parts, piece]
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
            parts = []


def _number(item: Any) -> float:
    """The value of a row's item, however the client has written it; NaN for what is none."""
    kind = item.WhichOneof("value")
    value = getattr(item, kind) if kind in ("integer", "number") else json.loads(item.value_json or "null")
    return float(value) if isinstance(value, int | float) else math.nan
