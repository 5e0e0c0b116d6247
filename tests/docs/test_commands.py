"""Command lines of the documentation: their configs and settings are ones that the program takes."""

import re
import shlex
from pathlib import Path

import pytest

from lcprobe.choices import choose
from lcprobe.config import load, parse
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.studies.launchers.contract import RunTask, Task
from lcprobe.studies.launchers.sbatch import run_script
from tests.docs.test_site import ROOT

GUIDE = ROOT / "docs" / "how-to" / "scale.md"
PAGES = [GUIDE, GUIDE.with_name("several-processes.md"), ROOT / "docs" / "explanation" / "costs.md"]
"""About studies that are too large to try."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\b(?:train|evaluate)\.py (.*)")


def blocks(page: Path) -> list[str]:
    """Of the shell: those without a language."""
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if not language]


def commands(page: Path) -> list[list[str]]:
    """Words after train.py or evaluate.py, of lines that are whole: without stand-ins for files."""
    found = [shlex.split(rest, comments=True) for rest in COMMAND.findall("\n".join(blocks(page)))]
    return [words for words in found if all(Path(ROOT / w).exists() for w in words if w.endswith(".yaml"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_settings_of_command_lines_are_accepted(page):
    for words in commands(page):
        files = [str(ROOT / word) for word in words if word.endswith(".yaml")]
        settings = [word for word in words if re.match(r"[a-z]\w*(\.\w+)*=", word)]
        whole = any("/study/" in file for file in files)
        parse(load(files if whole else [str(ROOT / "configs/quickstart.yaml"), *files], settings))


def test_the_guide_has_command_lines_of_every_kind():
    lines = [" ".join(words) for words in commands(GUIDE)]
    for wanted in ("launcher=local", "type: slurm", "launcher=ray", "train.devices=8", "train.devices=32"):
        assert any(wanted in line for line in lines), wanted


def test_the_batch_script_of_the_guide_has_the_options_of_ours():
    """Those that save before the end, queue the job again and start the processes, whatever the values are."""
    (written,) = [block for block in blocks(GUIDE) if block.startswith("#!/bin/bash")]
    launcher = choose(LAUNCHERS, {"type": "slurm"}, "launcher").config
    run = RunTask("r", Path("runs/s/r"), ("train.py", "runs/s/r.yaml"), 0, "")
    ours = run_script(launcher, Task(Path("runs/s"), ("train",), 1, 32, Path("logs"), (run,)), run)

    def options(script: str) -> set[str]:
        lines = [line.split(" python ")[0] for line in script.splitlines() if line.startswith(("#SBATCH", "srun"))]
        return {option for line in lines for option in re.findall(r"--([\w-]+)", line)}

    assert options(written) == options(ours) - {"job-name", "output"}
    assert re.findall(r"-eq (\d+)", written) == re.findall(r"-eq (\d+)", ours)
