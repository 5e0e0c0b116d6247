"""Checkpoints, data and locks that are damaged, gone, or another's."""

import json
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path

from lcprobe.files import digest_file, read_json, write_json
from lcprobe.locks import OWNER, holder_of, is_gone
from lcprobe.studies.tracking import read_metrics
from lcprobe.training.checkpoint import checkpoints
from lcprobe.training.module import Training
from validation.faults.harness import CORPUS, STEPS, Fault, Place, at_step, newest

MARKER = "payload-ran"


def _flip(path: Path, at: float = 0.6) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 16
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _bit(place: Place) -> None:
    _flip(newest(place) / "model.safetensors")


def _truncated(place: Place) -> None:
    _cut(newest(place) / "optimizer.safetensors")


def _no_manifest(place: Place) -> None:
    (newest(place) / "manifest.json").unlink()


def _swapped(place: Place) -> None:
    (_, new), (_, old) = checkpoints(place.saved)[:2]
    (new / "model.safetensors").write_bytes((old / "model.safetensors").read_bytes())


def _all_bad(place: Place) -> None:
    for _, path in checkpoints(place.saved):
        _flip(path / "model.safetensors")


def _remove_bad(place: Place) -> None:
    import shutil

    shutil.rmtree(place.run)


class _Payload:
    def __init__(self, marker: Path):
        self._marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self._marker}",)


def _pickle(place: Place) -> None:
    """A pickle in place of the weights, with a manifest that fits."""
    for _, path in checkpoints(place.saved):
        weights = path / "model.safetensors"
        weights.write_bytes(pickle.dumps(_Payload(place.folder / MARKER)))
        manifest = read_json(path / "manifest.json")
        manifest["files"]["model.safetensors"] = {"bytes": weights.stat().st_size, "sha256": digest_file(weights)}
        write_json(path / "manifest.json", manifest)


LATE = "\n\nA late insertion. " * 50


def _corpus(place: Place) -> None:
    path = place.folder.parent / CORPUS
    before = path.stat()
    path.write_text(path.read_text() + LATE)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


def _corpus_back(place: Place) -> None:
    """The text and its time as they were: other runs have it too."""
    path = place.folder.parent / CORPUS
    after = path.stat()
    path.write_text(path.read_text().removesuffix(LATE))
    os.utime(path, ns=(after.st_atime_ns, after.st_mtime_ns - 10**9))


def _shards(place: Place) -> list[Path]:
    return sorted(path for path in (place.folder / "data").glob("*/*") if path.stat().st_size > 10_000)


def _shard_bit(place: Place) -> None:
    for path in _shards(place):
        _flip(path)


def _shard_cut(place: Place) -> None:
    for path in _shards(place):
        _cut(path)


def _data_away(place: Place) -> None:
    import shutil

    shutil.rmtree(place.folder / "data")


def _status_torn(place: Place) -> None:
    with open(place.run / "metrics.csv", "a") as file:
        file.write("2304,9,0.0")


def _metrics_whole(place: Place) -> bool:
    """Whether every step has one row."""
    steps = [row["step"] for row in read_metrics(place.run / "metrics.csv") if "step" in row]
    return steps == list(range(1, STEPS + 1))


def _taken_over(place: Place) -> None:
    """From step 6 on the folder's lock is that of a process on another machine."""

    def take(module: Training) -> None:
        holder = holder_of(place.run / OWNER)
        assert holder is not None, "a lock"
        (place.run / OWNER).write_text(json.dumps(asdict(replace(holder, host="another", boot="another"))))

    at_step(6, take)


def _other_ends(place: Place) -> None:
    (place.run / OWNER).unlink()


def _left_locked(place: Place) -> None:
    """The run that this one goes on from was killed: its lock is there, and names a process that is gone."""
    holder = holder_of(place.run / OWNER)
    assert holder is not None, "a lock"
    assert is_gone(holder), holder


FAULTS = (
    Fault(
        "checkpoint: a bit",
        "a bit of the newest weights flipped",
        0,
        "model.safetensors does not match its digest",
        begins=True,
        damage=_bit,
    ),
    Fault(
        "checkpoint: truncated",
        "half of the newest optimiser state",
        0,
        "bytes instead of",
        begins=True,
        damage=_truncated,
    ),
    Fault(
        "checkpoint: no manifest",
        "the newest manifest deleted",
        0,
        "is damaged (no manifest.json): renamed to bad-step-",
        begins=True,
        damage=_no_manifest,
    ),
    Fault(
        "checkpoint: of another step",
        "weights of step 4 in the checkpoint of step 8",
        0,
        "does not match its digest",
        begins=True,
        damage=_swapped,
    ),
    Fault(
        "checkpoints: all damaged",
        "a bit of each flipped",
        5,
        "no valid checkpoint (",
        begins=True,
        damage=_all_bad,
        mend=_remove_bad,
    ),
    Fault(
        "checkpoint: a pickle",
        "a pickle with a payload as weights, and a manifest that fits",
        5,
        "model.safetensors: not readable (",
        begins=True,
        damage=_pickle,
        mend=_remove_bad,
    ),
    Fault(
        "text changed",
        "text added to the corpus of a run",
        2,
        "or another study.name to train again",
        begins=True,
        damage=_corpus,
        mend=_corpus_back,
    ),
    Fault(
        "tokens: a bit",
        "a bit of the token file flipped",
        2,
        "allowed: the files as they were prepared",
        begins=True,
        damage=_shard_bit,
        mend=_data_away,
    ),
    Fault(
        "tokens: truncated",
        "half of the token file",
        2,
        "allowed: the files as they were prepared",
        begins=True,
        damage=_shard_cut,
        mend=_data_away,
    ),
    Fault(
        "metrics: torn row",
        "half a row at the end of metrics.csv",
        0,
        "",
        begins=True,
        damage=_status_torn,
        bit=_metrics_whole,
    ),
    Fault("two trainers", "another process trains in the folder", 6, "locked by process", holds=True),
    Fault(
        "taken over",
        "from step 6 on the folder's lock is another process's",
        6,
        "taken over by another process, as this one was away for too long; it writes nothing more",
        inject=_taken_over,
        mend=_other_ends,
    ),
    Fault("lock left behind", "the lock of a process that was killed", 0, "", begins=True, damage=_left_locked),
)
