"""A case of an op's benchmark."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One op at one size: ours, the same work by peers, a check that comes first, and what the work costs at least."""

    op: str
    shape: str
    dtype: str
    run: Callable[[], None]
    """One forward and backward of ours."""
    peers: dict[str, Callable[[], None]]
    """The same work by others that are importable here."""
    check: Callable[[], float]
    """Relative error of ours against the reference."""
    flops: float
    """Of one run, at least."""
    bytes: float
    """Read and written by one run, at least."""
