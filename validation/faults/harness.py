"""Runs in forked processes: this one has imported everything, so that a run costs its steps alone.

A fault is put into the process of the run (`inject`, at a step, at a save), or into its files before (`damage`).
After that the same command runs undisturbed, and its weights are compared with those of a run that nothing befell.
"""

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.cli.commands import main as lcprobe_main
from lcprobe.errors import CheckpointError
from lcprobe.files import digest_file, read_json
from lcprobe.probing.store.disk import Store
from lcprobe.studies.launchers.work.orders import ProbeOrder, write_order
from lcprobe.studies.tracking import read_metrics
from lcprobe.training.checkpoint import checkpoints, latest
from lcprobe.training.module import Training

CONTEXT = multiprocessing.get_context("fork")
SECONDS = 240
"""After which a run that has not ended is killed, and the table says so."""
RUN = "tiny/one"
STEPS, EVERY = 12, 4
CORPUS = "corpus.txt"
TASK = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}


def study(folder: Path, **train: Any) -> dict[str, Any]:
    """The config of the run."""
    return {
        "study": {"name": "tiny", "folder": str(folder / "runs")},
        "model": {
            "d_model": 16, "d_ff": 24, "layout": "attention+mlp, mamba2",
            "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}},
        },
        "grid": {"arch": {"one": {}}},
        "train": {
            "context_length": 64, "tokens": 256 * STEPS, "batch_tokens": 256, "lr": 0.01, "log_every": 1,
            "checkpoint_every": 256 * EVERY, "threads": 1, "accelerator": "cpu", **train,
        },
        "data": {
            "corpus": [str(folder.parent / CORPUS)], "folder": str(folder / "data"), "held_out": 0.2,
            "haystack_chars": 20000,
            "recipes": {"lines": {"task": TASK}}, "mixture": [{"lm": 0.5, "episodes": {"lines": 1}}],
        },
        "probe": {"tasks": {"single": TASK}, "grids": [{"lengths": [1, 2], "depths": 2, "n": 4}],
                  "batch_tokens": 512},
        "track": {"wandb": "off"},
    }  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended. code: negative for a signal; text: what it printed."""

    code: int | None
    text: str


@dataclass(frozen=True)
class Place:
    """Where a run and its text are."""

    folder: Path

    @property
    def config(self) -> Path:
        """The config of the run."""
        return self.folder / "tiny.yaml"

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder / "runs" / RUN

    @property
    def saved(self) -> Path:
        """The folder of its checkpoints."""
        return self.run / "checkpoints"

    def copied(self, to: Path) -> "Place":
        """All of it in another folder."""
        shutil.copytree(self.folder, to)
        place = Place(to)
        for path in (place.config, *place.folder.glob("runs/tiny/**/*.yaml")):
            path.write_text(path.read_text().replace(str(self.folder), str(to)))
        return place


@dataclass(frozen=True)
class Fault:
    """A fault, and what is to come of it.

    done: what was done, in words; code: exit code of the run; says: what it prints; begins: the run has 8 of its 12
    steps already; records: it is trained, and the fault befalls an evaluation; damage: is done to its files before;
    inject: is called in its process before the command; arguments: of the command; ranks: its processes, of which
    `code` is the first's; holds: another process has the folder meanwhile; mend: puts right what no program can,
    before the same command runs again; after: arguments of that; then, then_says: its exit code, and what it prints;
    equal: whether its weights (records) are then those of an undisturbed run, or, with `like`, of a run that only
    that was put into; by_worker: the evaluation is done by a worker, as a launcher starts it; bit: whether the fault
    took effect, where nothing printed shows it.
    """

    name: str
    done: str
    code: int
    says: str
    begins: bool = False
    records: bool = False
    damage: Callable[[Place], None] | None = None
    inject: Callable[[Place], None] | None = None
    arguments: Sequence[str] = ()
    ranks: int = 1
    holds: bool = False
    mend: Callable[[Place], None] | None = None
    after: Sequence[str] = ()
    then: int = 0
    then_says: str = ""
    equal: bool = True
    like: Callable[[Place], None] | None = None
    by_worker: bool = False
    bit: Callable[[Place], bool] | None = None


def at_step(step: int, do: Callable[[Training], None], rank: int | None = None) -> None:
    """Do something in this process in the middle of a step, after its backward pass: once."""
    plain, left = Training.configure_gradient_clipping, [True]

    def clipping(self: Training, *args: Any, **kwargs: Any) -> None:
        here = rank is None or int(os.environ.get("RANK", 0)) == rank
        if self.progress.step == step and left[0] and here:
            left[0] = False
            do(self)
        plain(self, *args, **kwargs)

    Training.configure_gradient_clipping = clipping  # type: ignore[method-assign]


def run(
    place: Place, arguments: Sequence[str], inject: Callable[[Place], None] | None = None, ranks: int = 1
) -> Ended:
    """Run the training command; with several processes, the first one's outcome and the text of all."""
    return started(place, train_main, [str(place.config), *arguments], inject, ranks)()


def work(place: Place, inject: Callable[[Place], None] | None, arguments: Sequence[str]) -> Ended:
    """Have a worker do the evaluation."""
    study, settings = place.folder / "runs" / "tiny", [one.split("=", 1) for one in arguments]
    order = ProbeOrder(folders=(str(study),), settings=tuple((key, yaml.safe_load(value)) for key, value in settings))
    write_order(study, order)
    return started(place, lcprobe_main, ["work", str(study), "--units", "probe"], inject)()


def probe(place: Place, inject: Callable[[Place], None] | None = None, arguments: Sequence[str] = ()) -> Ended:
    """Run the evaluation command."""
    return started(place, evaluate_main, [str(place.folder / "runs" / "tiny"), *arguments], inject)()


def started(
    place: Place,
    main: Callable[[list[str]], int],
    arguments: Sequence[str],
    inject: Callable[[Place], None] | None = None,
    ranks: int = 1,
) -> Callable[[], Ended]:
    """Start a command; returns a function that waits for its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    logs = [place.folder / f"log-{rank}" for rank in range(ranks)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        CONTEXT.Process(target=_child, args=(place, main, list(arguments), inject, logs[n], n, ranks, port))
        for n in range(ranks)
    ]
    for child in children:
        child.start()

    def wait() -> Ended:
        for child in children:
            child.join(SECONDS)
            if child.is_alive():
                child.kill()
                child.join()
        return Ended(children[0].exitcode, "".join(log.read_text(errors="replace") for log in logs))

    return wait


def _child(
    place: Place, main: Any, arguments: list[str], inject: Any, log: Path, rank: int, ranks: int, port: int
) -> None:
    file = open(log, "w", buffering=1)  # noqa: SIM115
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = file, file
    if ranks > 1:
        here = {"WORLD_SIZE": ranks, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    try:
        if inject is not None:
            inject(place)
        code = main(arguments)
    except BaseException:  # a defect: the table shows its last line
        traceback.print_exc(file=file)
        code = 1
    file.flush()
    os._exit(code)


def weights(place: Place) -> str:
    """Digest of a run's final weights; empty where there are none."""
    try:
        newest = latest(place.saved)
    except CheckpointError:
        return ""
    return "" if newest is None else digest_file(newest / "model.safetensors")


def records(place: Place) -> list[tuple[Any, ...]]:
    """All records of an evaluation, sorted, without when and how fast they were made. Raises DataError for a damaged
    file."""
    store = Store(place.folder / "runs" / "tiny" / "records")
    units = [path.stem for path in store.folder.glob("*.parquet")]
    table = store.read(units).to_pylist()
    return sorted(tuple(str(value) for name, value in row.items() if name not in NOT_COMPARED) for row in table)


NOT_COMPARED = ("code", "seconds", "time", "device")


def step_reached(place: Place) -> int:
    """The last step that the run's metrics have."""
    return max([int(row["step"]) for row in read_metrics(place.run / "metrics.csv") if "step" in row], default=0)


def step_saved(place: Place) -> int:
    """The step of the newest checkpoint that can be used."""
    try:
        newest = latest(place.saved)
    except CheckpointError:
        return 0
    return 0 if newest is None else read_json(newest / "state.json")["step"]


def newest(place: Place) -> Path:
    """The newest checkpoint, whole or not."""
    return checkpoints(place.saved)[0][1]


def write_study(folder: Path, text: str) -> Place:
    """A folder with the config of a run, beside the text, which all runs have."""
    folder.mkdir(parents=True)
    (folder.parent / CORPUS).write_text(text)
    place = Place(folder)
    place.config.write_text(yaml.safe_dump(study(folder), sort_keys=False))
    return place


def kill_self(module: Training) -> None:
    """SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)
