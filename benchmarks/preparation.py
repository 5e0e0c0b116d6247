"""Peak memory and speed of `lcprobe data prepare` by the size of a file: one text, which is one document, and JSON
lines; and of the embedded speeches, once.

Each in a process of its own, which prints its peak resident memory and CPU time at the end; what it takes before it
reads the file is printed too. Files have the embedded speeches over and over, in which few words are new after the
first 8 MB; the speeches alone are the other case. One process encodes, so that MB of text per CPU second are those of
a core; a row with two says what the reading process takes beside them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lcprobe.data.sources.sotu import speeches

TITLE = "peak memory and speed of `data prepare`"
OPTIONS = ("megabytes",)
MEGABYTES = (1, 30, 200)
FEW_TOKENS = 1000
CODE = """
import json, os, sys, time
from lcprobe.cli.commands import main
import lcprobe.data.prepare, lcprobe.tasks.text.tokenizer
status = lambda: dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = lambda: round(int(status()["VmHWM"].split()[0]) / 1024)
lcprobe.tasks.text.tokenizer.load_tokenizer()
begun, at = time.process_time(), time.time()
before, code = peak(), main(["data", "prepare", *sys.argv[1:]])
times = os.times()
print(json.dumps({
    "exit": code, "before MB": before, "peak MB": peak(), "CPU s": round(times.user + times.system - begun, 1),
    "CPU s of processes": round(times.children_user + times.children_system, 1), "wall s": round(time.time() - at, 1),
}))
"""
"""Run by the process that is measured, on Linux. getrusage's maximum would be the parent's where that is more."""


def paragraphs() -> Iterator[str]:
    """The embedded speeches' paragraphs, over and over, each time with another number in front."""
    texts, number = [text for speech in speeches() for text in speech.split("\n\n")], 0
    while True:
        for text in texts:
            number += 1
            yield f"{number}. {text}"


def write_corpus(path: Path, n_bytes: int) -> None:
    """A file of about this many bytes: one text, or, for .jsonl, a row per paragraph."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in paragraphs():
            size += file.write(json.dumps({"text": text}) + "\n" if path.suffix == ".jsonl" else f"{text}\n\n")
            if size >= n_bytes:
                return


def peak_of(corpus: str, folder: Path, *settings: str) -> dict[str, Any]:
    """What a process of its own says about preparing a file, or another source."""
    arguments = [f"data.corpus=[{corpus}]", f"data.folder={folder}", *settings]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True, timeout=3600
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per file, and one for a large file of which few tokens are wanted."""
    sizes = [int(size) for size in options["megabytes"].split(",")] if "megabytes" in options else [*MEGABYTES]
    few, one = f"data.max_tokens={FEW_TOKENS}", "data.workers=1"
    rows = []
    with TemporaryDirectory() as name:
        mb = sum(len(text.encode()) for text in speeches()) / 1e6
        rows.append(_row("sotu", mb, "", peak_of("sotu", Path(name) / "data", one)))
    for suffix in (".txt", ".jsonl"):
        two = [(sizes[-1], ["data.workers=2"])] if suffix == ".jsonl" else []
        for size, settings in (*((size, []) for size in sizes), *two, (sizes[-1], [few])):
            with TemporaryDirectory() as name:
                path = Path(name) / f"corpus{suffix}"
                write_corpus(path, size * 10**6)
                own = settings if two and settings == two[0][1] else [one, *settings]
                rows.append(_row(suffix, size, " ".join(settings), peak_of(str(path), Path(name) / "data", *own)))
    return rows


def _row(file: str, megabytes: float, setting: str, found: dict[str, Any]) -> dict[str, Any]:
    seconds = found["CPU s"] + found["CPU s of processes"]
    rate = "" if "max_tokens" in setting else round(megabytes / max(seconds, 0.1), 1)
    return {"file": file, "MB": round(megabytes), "setting": setting, **found, "MB/s per core": rate}


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """How much the peak grows with the file."""
    grown = []
    for suffix in (".txt", ".jsonl"):
        own = [row for row in rows if row["file"] == suffix and not row["setting"]]
        least, most = own[0], own[-1]
        more = most["peak MB"] - least["peak MB"]
        grown.append(f"{suffix}: {more} MB more at {most['MB']} MB than at {least['MB']} MB of file")
    return grown
