"""How far probing is, for whoever shows it."""

from collections.abc import Callable

import pyarrow as pa

from lcprobe.words import short

ProbeProgress = Callable[[int, int, str], None]
"""Called with (tokens done, tokens in total, what is being done), both of one model."""


def no_progress(done: int, total: int, label: str) -> None:
    """Reports nothing."""


def shared_tokens_text(name: str, records: pa.Table) -> str:
    """How many prompt tokens of a model were read, and the share that needed no reading of its own; empty where
    nothing was read."""
    read, prompts = (sum(filter(None, records[column].to_pylist())) for column in ("read_tokens", "prompt_tokens"))
    if not read:
        return ""
    shared = f"{short(prompts)} prompt tokens read as {short(read)}, {1 - read / prompts:.0%} shared"
    return f"probed {name}: {shared}"
