"""Memory of reading a long prompt: in chunks with carried state, beside in one piece.

Small models of 2 blocks, one sequence, float32. Every figure is of a process of its own, which reads 2,048 tokens
first, so that what is allocated once is there; then its peak resident memory is reset (proc(5), clear_refs) and read
again after the prompt. Reported is what the prompt added (its ids among it, 0.5 MB at 65,536 tokens), and the bytes
of the state that is left. With recurrent layers, and attention under a window, what is added hardly depends on the
length; with full attention it is the cache of keys and values, which has room to grow. One piece of a long prompt is
left out where attention would take minutes.
"""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.state import tensors_of
from lcprobe.schema import build

TITLE = "memory: peak MB that a prompt adds, d_model 64, 2 blocks, chunks of 1,024 tokens"
OPTIONS = ("longest",)
CHUNK, WARM, VOCAB = 1024, 2048, 512
LENGTHS = (4096, 8192, 16_384, 32_768, 65_536)


@dataclass(frozen=True)
class Subject:
    """A model by name. whole_up_to: longest prompt that is also read in one piece."""

    name: str
    layout: str
    whole_up_to: int


SUBJECTS = (
    Subject("mamba2", "mamba2 x 2", 65_536),
    Subject("hybrid, window 1,024", "mamba2, local+mlp", 16_384),
    Subject("attention", "attention+mlp x 2", 8192),
)


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per model and length. options: longest (65536)."""
    longest, rows, threads = int(options.get("longest", LENGTHS[-1])), [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for subject in SUBJECTS:
            for length in (n for n in LENGTHS if n <= longest):
                carried, state = in_own_process(subject, length, CHUNK)
                whole = in_own_process(subject, length, length)[0] if length <= subject.whole_up_to else None
                rows.append(
                    {
                        "model": subject.name,
                        "tokens": length,
                        "chunks MB": round(carried / 1e6, 1),
                        "one piece MB": None if whole is None else round(whole / 1e6, 1),
                        "state MB": round(state / 1e6, 2),
                    }
                )
                print(rows[-1], flush=True)
    finally:
        torch.set_num_threads(threads)
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """By how much memory grows from the shortest to the longest prompt."""
    told = []
    for subject in SUBJECTS:
        own = [row for row in rows if row["model"] == subject.name]
        first, last = own[0], own[-1]
        grown = last["chunks MB"] - first["chunks MB"]
        told.append(
            f"{subject.name}: {last['tokens'] // first['tokens']} times the tokens add {grown:+.1f} MB in chunks"
        )
    return told


def in_own_process(subject: Subject, length: int, chunk: int) -> tuple[int, int]:
    """Peak bytes that a prompt adds, and bytes of its state."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, subject, length, chunk))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def _child(pipe: Connection, subject: Subject, length: int, chunk: int) -> None:
    mixers = {"attention": {"head_dim": 32}, "mamba2": {"head_dim": 32, "d_state": 64},
              "local": {"type": "attention", "head_dim": 32, "window": 1024}}  # fmt: skip
    given = {"layout": subject.layout, "d_model": 64, "d_ff": 128, "vocab_size": VOCAB, "mixers": mixers}
    model = LanguageModel(build(ModelConfig, given, "model")).initialise(0).eval()
    _read(model, WARM, min(chunk, WARM))
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    state = _read(model, length, chunk)
    pipe.send((_status("VmHWM") - before, state))
    pipe.close()


@torch.inference_mode()
def _read(model: LanguageModel, length: int, chunk: int) -> int:
    """Read a prompt; bytes of the state after it."""
    ids = torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(0))
    state, hidden = model.new_state(1), None
    for lo in range(0, length, chunk):
        hidden, state = model.hidden(ids[:, lo : lo + chunk], state=state)
    assert hidden is not None
    model.logits(hidden[:, -1])
    return sum(t.numel() * t.element_size() for t in tensors_of(state))


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
