"""How far probing is, for whoever shows it."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from lcprobe.probing.units import Unit
from lcprobe.words import short


class Done(NamedTuple):
    """Prompt and answer tokens, and cells, of one model."""

    tokens: int
    cells: int

    def plus(self, other: "Done", share: float = 1.0) -> "Done":
        """With a share of something else: its whole cells."""
        return Done(self.tokens + round(share * other.tokens), self.cells + int(share * other.cells))


ProbeProgress = Callable[[Done, str], None]
"""Called with what is done of one model, and what is being done."""


def no_progress(done: Done, label: str) -> None:
    """Reports nothing."""


def amount_of_units(units: Iterable[Unit]) -> Done:
    """What units of work are altogether."""
    cells = [(unit.length * n) for unit in units for _, n in unit.cells]
    return Done(sum(cells), len(cells))


TOKEN_COLUMNS = ("read_tokens", "prompt_tokens")
"""What `shared_tokens_text` looks at."""


def shared_tokens_text(name: str, records: pa.Table) -> str:
    """How many prompt tokens of a model were read, and the share that needed no reading of its own; empty where
    nothing was read."""
    read, prompts = (pc.sum(records[column]).as_py() or 0 for column in TOKEN_COLUMNS)
    if not read:
        return ""
    shared = f"{short(prompts)} prompt tokens read as {short(read)}, {1 - read / prompts:.0%} shared"
    return f"probed {name}: {shared}"
