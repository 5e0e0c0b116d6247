"""Killed a hundred times and more, and still the same study: training by one process and by two ranks, checkpoints
while they are written, ends of runs, ranks that change, probing by one and by two processes, and launchers with their
workers: processes of this machine, jobs of submitit's local executor, tasks of Ray.

Compared with the uninterrupted study, of the same division over processes: weights and AdamW's moments by SHA-256,
metrics.csv row by row, the rolling digest of the batches, every record, and W&B's history of the folder that
`lcprobe sync` would send, where each step, and each length of an evaluation, must be once. Where the number of ranks
changes between attempts, weights, moments and metrics must be within 1e-5 of one process: other sums round otherwise.
"""

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Rows
from lcprobe.errors import require, unknown_name
from validation.forked import CONTEXT
from validation.kills.kinds import JOBS, TASKS, Base, Killing, Tally
from validation.kills.study import DIVISIONS, new_study

TITLE = "kills at random and at named moments, against the uninterrupted study"
OPTIONS = ("n", "seed", "steps", "kinds")
GROUP = ("kind",)
SOURCE = Path(__file__).resolve().parents[2]
KINDS = {
    "one process": 22,
    "in a save": 16,
    "signals": 8,
    "at a run's end": 6,
    "ranks change": 8,
    "ddp, 2 ranks": 10,
    "fsdp2, 2 ranks": 12,
    "probe, 1 process": 8,
    "probe, 2 processes": 8,
    "launcher, training": 6,
    "launcher, probing": 4,
    "jobs of submitit": 3,
    "tasks of Ray": 3,
}
"""Kinds, and how many of a hundred kills each has."""
CHAINS = (
    ("one process", "in a save"),
    ("signals", "at a run's end", "ranks change"),
    ("ddp, 2 ranks", "fsdp2, 2 ranks"),
    ("probe, 1 process", "probe, 2 processes"),
    ("launcher, training", "launcher, probing"),
    ("jobs of submitit", "tasks of Ray"),
)
"""Kinds that follow each other; chains run beside each other."""
ELSEWHERE = {"jobs of submitit": JOBS, "tasks of Ray": TASKS}
"""Launchers by kind whose workers are no children of theirs."""
MOMENTS = {
    "one process": ("random",),
    "in a save": ("save",),
    "signals": ("signal",),
    "at a run's end": ("end",),
    "ranks change": ("random", "random", "signal"),
    "ddp, 2 ranks": ("random", "random", "random", "save", "signal"),
    "fsdp2, 2 ranks": ("random", "random", "save"),
}
DIVIDED = {"ddp, 2 ranks": ("ddp",), "fsdp2, 2 ranks": ("fsdp2",), "ranks change": ("one", "ddp", "fsdp2")}


def measure(options: dict[str, str]) -> Rows:
    """A row for each kind. options: n (100): kills, shared out over the kinds; seed (0); steps (60): of each of the
    two runs; kinds (all; separated by semicolons)."""
    threads = torch.get_num_threads()
    n, seed, steps = (int(options.get(name, usual)) for name, usual in (("n", 100), ("seed", 0), ("steps", 60)))
    wanted = [name.strip() for name in options["kinds"].split(";")] if "kinds" in options else list(KINDS)
    for name in wanted:
        if name not in KINDS:
            raise unknown_name("kinds", name, KINDS)
    require("n", n, n >= len(wanted), f"{len(wanted)} or more, one for each kind")
    shares = {name: max(1, -(-n * KINDS[name] // sum(KINDS[one] for one in wanted))) for name in wanted}
    _import_all()
    paths = [str(SOURCE), str(SOURCE / "kernels"), os.environ.get("PYTHONPATH", "")]
    changed = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}  # of workers
    before = {name: os.environ.get(name) for name in changed}
    os.environ |= changed
    rows: Rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = []
            for number, chain in enumerate(CHAINS):
                own = {name: shares[name] for name in chain if name in wanted}
                if own:
                    receiver, sender = CONTEXT.Pipe(duplex=False)
                    place = Path(folder) / str(number)
                    process = CONTEXT.Process(target=_chain, args=(place, own, seed, steps, sender))
                    process.start()
                    sender.close()
                    started.append((receiver, process))
            ended = [receiver.recv() for receiver, _ in started]
            for _, process in started:
                process.join()
            for error, own_rows in ended:
                if error:
                    raise RuntimeError(error)
                rows += own_rows
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return sorted(rows, key=lambda row: list(KINDS).index(row["kind"]))


def notes(rows: Rows) -> list[str]:
    """What must hold, and what the columns say."""
    wrong = [f"{row['kind']}: {row['faults']}" for row in rows if row["faults"] != "none"]
    total = {name: sum(row[name] for row in rows) for name in ("kills", "studies", "inside a save", "steps again")}
    return [
        f"{total['kills']} kills, {total['inside a save']} of them inside a save; {total['studies']} finished "
        f"studies of two runs compared; {total['steps again']} steps made again",
        *([f"NOT as the uninterrupted study: {'; '.join(wrong)}"] if wrong else ["all as the uninterrupted study"]),
        "kills: that hit an attempt which had made a step, or a record, of its own, and which ended by it; of "
        "several processes one or all are killed. signals: SIGTERM, SIGINT and SIGUSR1",
        "apart: the largest difference of a weight or moment; 0 where SHA-256 is the same, which is asked of all "
        "kinds but `ranks change` (1e-5, relative to their size in metrics.csv too)",
    ]


def _chain(home: Path, kills: Mapping[str, int], seed: int, steps: int, sender: Connection) -> None:
    """One chain of kinds, in a process of its own; sends its rows, or a traceback."""
    try:
        sender.send((None, _kinds(home, kills, seed, steps)))
    except BaseException:  # whatever it was: the parent says it
        sender.send((traceback.format_exc(), []))
    finally:
        sender.close()
        os._exit(0)


def _kinds(home: Path, kills: Mapping[str, int], seed: int, steps: int) -> Rows:
    study, rows, bases = new_study(home, steps), list[dict[str, Any]](), dict[str, Base]()
    plans = {name: study.plan(name) for name in DIVISIONS if any(name in DIVIDED.get(k, ("one",)) for k in kills)}
    trained = home / "trained"
    for kind, n in kills.items():
        began, killing = time.perf_counter(), Killing(study, f"{seed} {kind}")
        if kind in MOMENTS:
            divided = DIVIDED.get(kind, ("one",))
            if divided[0] not in bases:
                bases[divided[0]] = _trained(killing, divided[0], plans)
            base = bases[divided[0]]
            killing.train_killed({name: plans[name] for name in divided}, base, n, MOMENTS[kind])
        elif kind in ELSEWHERE:
            if "one" not in bases:
                bases["one"] = _trained(killing, "one", plans)
            killing.elsewhere_killed(bases["one"], n, ELSEWHERE[kind])
        elif kind == "launcher, training":
            bases["one"] = _trained(killing, "one", plans)
            shutil.copytree(study.folder, trained, symlinks=True)
            killing.launch_killed(bases["one"], n, "train")
        else:
            if not trained.exists():
                _trained(killing, "one", plans)
                shutil.copytree(study.folder, trained, symlinks=True)
            if "probe" not in bases:
                killing.again_trained(trained)
                bases["probe"] = killing.uninterrupted(killing.start_probing, killing.recorded)
            base = bases["probe"]
            if kind == "probe, 1 process":
                killing.probe_killed(trained, base, n)
            elif kind == "probe, 2 processes":
                killing.share_killed(trained, base, n)
            else:
                killing.launch_killed(base, n, "probe", trained)
        rows.append(_row(kind, killing.tally, time.perf_counter() - began))
        print(*rows[-1].values(), sep="  ", flush=True)
    return rows


def _trained(killing: Killing, division: str, plans: Mapping[str, Any]) -> Base:
    """The study, trained without a kill."""
    killing.clear()
    killing.study.plan(division)
    processes = DIVISIONS[division].processes
    return killing.uninterrupted(lambda: killing.start_training(plans[division], processes), killing.rows)


def _row(kind: str, tally: Tally, seconds: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "kills": tally.kills,
        "signals": ", ".join(f"{name} {count}" for name, count in sorted(tally.by_signal.items())),
        "inside a save": tally.in_a_save,
        "attempts": tally.attempts,
        "steps again": tally.steps_again,
        "studies": tally.studies,
        "apart": tally.apart,
        "faults": "; ".join(dict.fromkeys(tally.faults)) or "none",
        "seconds": round(seconds),
    }


def _import_all() -> None:
    """What attempts need, before any of them is forked."""
    for name in (
        "wandb",
        "lightning.pytorch.loggers",
        "lcprobe.studies.evaluation.evaluate_study",
        "lcprobe.studies.launchers.launch",
        "lcprobe.training.fit",
    ):
        import_module(name)
    torch.set_num_threads(1)
