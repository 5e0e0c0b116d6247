"""What a tiny study gives, to the bit: weights, episodes and records, kept in baseline.json.

A change that is meant to leave results alone leaves `tests/test_baseline.py` green. One that is meant to change them (a new
suite, another initial value) writes the file again and says which digests changed, and why:

    python -m tests.baseline

Floating-point results depend on the processor and on the versions of torch and MKL. The study runs in a process of its own, on
one thread, with instructions that every x86-64 processor has; under another torch or system than the file names, numbers
are compared within a tolerance, and digests of integers to the bit.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from lcprobe.files import read_json

FILE = Path(__file__).parent / "baseline.json"
ROOT = FILE.parent.parent.parent
COMMON_INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
}


def machine() -> dict[str, str]:
    """What floating-point results depend on besides the code, given COMMON_INSTRUCTIONS: processors of Intel and AMD agree."""
    import torch

    return {"torch": torch.__version__, "system": f"{platform.system()} {platform.machine()}"}


def python_version() -> str:
    """The version whose standard library is the `python` haystack."""
    return platform.python_version()


def measure(folder: Path) -> dict[str, Any]:
    """Train and probe the study in a process of its own; what `study.measured` says of it."""
    out = folder / "measured.json"
    environment = {**os.environ, **COMMON_INSTRUCTIONS, "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.baseline.study", str(folder), str(out)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return read_json(out)
