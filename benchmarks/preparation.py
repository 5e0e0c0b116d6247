"""Peak memory of `lcprobe data prepare` by the size of a file: one text, which is one document, and JSON lines.

Each in a process of its own, which prints its peak resident memory at the end; what it takes before it reads the file
is printed too.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lcprobe.data.sources.sotu import speeches

TITLE = "peak memory of `data prepare`"
OPTIONS = ("megabytes",)
MEGABYTES = (1, 30, 200)
FEW_TOKENS, FEW_MEGABYTES = 1000, 200
CODE = """
import json, sys, time
from lcprobe.cli.commands import main
import lcprobe.data.prepare, lcprobe.tasks.text.tokenizer
status = lambda: dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = lambda: round(int(status()["VmHWM"].split()[0]) / 1024)
lcprobe.tasks.text.tokenizer.load_tokenizer()
before, code = peak(), main(["data", "prepare", *sys.argv[1:]])
print(json.dumps({"exit": code, "before MB": before, "peak MB": peak(), "CPU s": round(time.process_time(), 1)}))
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


def peak_of(path: Path, folder: Path, *settings: str) -> dict[str, Any]:
    """What a process of its own says about preparing a file."""
    arguments = [f"data.corpus=[{path}]", f"data.folder={folder}", *settings]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True, timeout=3600
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per file, and one for a large file of which few tokens are wanted."""
    sizes = [int(size) for size in options["megabytes"].split(",")] if "megabytes" in options else [*MEGABYTES]
    few = f"data.max_tokens={FEW_TOKENS}"
    rows = []
    for suffix in (".txt", ".jsonl"):
        for size, settings in (*((size, []) for size in sizes), (FEW_MEGABYTES, [few])):
            with TemporaryDirectory() as name:
                path = Path(name) / f"corpus{suffix}"
                write_corpus(path, size * 10**6)
                found = peak_of(path, Path(name) / "data", *settings)
                rows.append({"file": suffix, "MB": size, "setting": " ".join(settings), **found})
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """How much the peak grows with the file."""
    grown = []
    for suffix in dict.fromkeys(row["file"] for row in rows):
        own = [row for row in rows if row["file"] == suffix and not row["setting"]]
        least, most = own[0], own[-1]
        more = most["peak MB"] - least["peak MB"]
        grown.append(f"{suffix}: {more} MB more at {most['MB']} MB than at {least['MB']} MB of file")
    return grown
