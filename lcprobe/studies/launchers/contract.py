"""What a launcher is: it starts workers somewhere and says how they ended. What workers do, how often a unit is tried
again, and that workers are replaced, is the same for all (`work/`, `watching/watch.py`)."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Generic, Protocol, TypeVar

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class RunTask:
    """A run, or a trial, that is trained by processes of its own. words: what Python is given in each of them;
    launch: number of the launch; settings: digest of its settings."""

    name: str
    folder: Path
    words: tuple[str, ...]
    launch: int
    settings: str

    @property
    def command(self) -> list[str]:
        """That trains it."""
        return [sys.executable, *self.words]


@dataclass(frozen=True)
class Task:
    """What workers of one launch are started for. folder: of the study; units: kind (`train`, `probe`) or names of
    those that they take; count: how many units are left; devices: GPUs of each, as many as its runs have; logs:
    folder for what they print; runs: those of the units that are runs."""

    folder: Path
    units: tuple[str, ...]
    count: int
    devices: int
    logs: Path
    runs: tuple[RunTask, ...] = ()

    @property
    def command(self) -> list[str]:
        """That starts a worker, from the folder that the launcher runs in."""
        return [sys.executable, "-m", "lcprobe", "work", str(self.folder), "--units", *self.units]


class Started(Protocol):
    """A worker that was started. name: as messages call it."""

    @property
    def name(self) -> str: ...

    def exit_code(self) -> int | None:
        """How it ended, below 0 for a signal; None: it runs, or waits to run."""
        ...

    def last_line(self) -> str:
        """The last line that it printed."""
        ...

    def stop(self, now: bool) -> None:
        """Ask it to save and end; now: end it at once."""
        ...


class Launcher(ABC, Generic[ConfigT]):
    """Starts workers. A context: what it needs is opened and closed with it."""

    Config: ClassVar[type]

    def __init__(self, config: ConfigT):
        self.config = config

    def __enter__(self) -> "Launcher[ConfigT]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def check(self) -> None:
        """Raises ConfigError where what it starts workers with is missing here. Called before anything is written."""

    @abstractmethod
    def places(self, task: Task) -> int:
        """How many workers a task has at once. Raises ConfigError where it cannot have any here."""

    @abstractmethod
    def start(self, task: Task, places: Sequence[int]) -> list[Started]:
        """Start a worker at each of these places, 0 .. `places` - 1."""

    def of_runs(self, task: Task) -> bool:
        """Whether places are runs, in the order of `task.runs`, and not workers that take what is free."""
        return False

    @property
    @abstractmethod
    def retries(self) -> int:
        """Times that a unit of work is tried again."""

    @property
    def waits(self) -> bool:
        """Whether workers are watched until nothing is left."""
        return True

    def scripts(self, task: Task) -> dict[str, str] | None:
        """What would be submitted, by name, where it is to be printed only; None: workers are started."""
        return None


def last_line_of(path: Path, most: int = 4096) -> str:
    """The last line of a text file that is not blank; empty without one."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - most))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
