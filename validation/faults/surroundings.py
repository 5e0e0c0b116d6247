"""Settings that change in the middle of a run, clocks, places that cannot be written, W&B."""

import os
import time
from typing import Any

from validation.faults.harness import Fault, Place

LOOKED = "looked"


def _leftover(place: Place) -> None:
    """A file that another machine was writing: it is deleted by its age, for which the clock is looked at."""
    (place.folder / "runs" / "tiny").mkdir(parents=True)
    (place.folder / "runs" / "tiny" / ".plan.csv.another.tmp").touch()


def _looked(place: Place) -> bool:
    return (place.folder / LOOKED).exists()


def _clock(place: Place) -> None:
    """The wall clock goes back by a day with each look."""
    plain, looks = time.time, [0]

    def back() -> float:
        looks[0] += 1
        (place.folder / LOOKED).touch()
        return plain() - 86_400 * min(looks[0], 3)

    time.time = back


class _Broken:
    """A W&B whose `init` fails, or whose runs do."""

    def __init__(self, at: str):
        self._at = at

    def module(self) -> Any:
        import wandb

        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("the server of W&B is gone")

        if self._at == "init":
            wandb.init = fail  # type: ignore[assignment]
        else:
            wandb.Run.log = fail  # type: ignore[method-assign]
        return wandb


def _wandb_init(place: Place) -> None:
    os.environ["WANDB_MODE"] = "offline"
    _Broken("init").module()


def _wandb_log(place: Place) -> None:
    os.environ["WANDB_MODE"] = "offline"
    _Broken("log").module()


OFFLINE = ("track.wandb=offline",)
OFF = "W&B is off from now on ("
OTHER = "(or another study.name)"
FAULTS = (
    Fault(
        "another seed",
        "seed=1 for a run of seed 0",
        2,
        OTHER,
        begins=True,
        arguments=["seed=1"],
    ),
    Fault(
        "another learning rate",
        "train.lr=0.02 in the middle of a run",
        2,
        OTHER,
        begins=True,
        arguments=["train.lr=0.02"],
    ),
    Fault(
        "another batch",
        "train.batch_tokens=512 in the middle of a run",
        2,
        OTHER,
        begins=True,
        arguments=["train.batch_tokens=512"],
    ),
    Fault(
        "another number of threads",
        "train.threads=2 in the middle of a run",
        0,
        "",
        begins=True,
        arguments=["train.threads=2"],
        equal=False,
    ),
    Fault(
        "a place that cannot be written",
        "study.folder=/proc/runs",
        74,
        "error: input/output: ",
        arguments=["study.folder=/proc/runs"],
    ),
    Fault("the clock goes back", "by a day at every look", 0, "", damage=_leftover, inject=_clock, bit=_looked),
    Fault("W&B does not begin", "wandb.init raises", 0, OFF, inject=_wandb_init, arguments=OFFLINE),
    Fault("W&B fails in the middle", "logging to W&B raises", 0, OFF, inject=_wandb_log, arguments=OFFLINE),
)
