"""Whether a job of SLURM that was stopped to be continued goes into the queue again: as a worker that a launcher
watches, not after so many times in a row with nothing saved in between.

`python -m lcprobe.studies.launchers.work.requeue STUDY JOB RETRIES` ends with 0 where it does, else with 1 and a
line; batch scripts ask it before `scontrol requeue`. Imports no torch.
"""

import sys
from contextlib import suppress
from pathlib import Path

from lcprobe.files import digest_json, read_json, write_json
from lcprobe.studies.status import WORK
from lcprobe.words import counted

REQUEUES = "requeues"
"""In `work`: a file for each job."""
SAVED = (
    "*/checkpoints/step-*",
    "sweep/*/checkpoints/step-*",
    "records/*.parquet",
    "records/*.journal",
    "context/*.parquet",
)
"""What is saved of a study, within its folder."""


def goes_on(study: Path, job: str, retries: int) -> bool:
    """Whether a job, by its number, is to be queued again. Called once each time that it was stopped."""
    path, saved, idle = study / WORK / REQUEUES / f"{job}.json", _saved(study), 0
    with suppress(OSError, ValueError, KeyError, TypeError):  # the first time
        before = read_json(path)
        idle = int(before["idle"]) + 1 if before["saved"] == saved else 0
    write_json(path, {"saved": saved, "idle": idle})
    return idle <= retries


def _saved(study: Path) -> str:
    """Digest of names and sizes of what is saved."""
    paths = sorted(path for pattern in SAVED for path in study.glob(pattern))
    found = []
    for path in paths:
        with suppress(OSError):  # removed meanwhile
            found.append([path.relative_to(study).as_posix(), path.stat().st_size if path.is_file() else 0])
    return digest_json(found)


def main(words: list[str]) -> int:
    """The exit code of the command."""
    study, job, retries = words
    if goes_on(Path(study), job, int(retries)):
        return 0
    print(
        f"job {job}: stopped {counted(int(retries) + 1, 'time')} in a row with nothing saved since the last one, and "
        "not queued again; its log says why; next: sbatch again, once that is mended",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
