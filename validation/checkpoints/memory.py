"""Peak memory of loading a published checkpoint: a synthetic one of mamba2-2.7b's shape, in bfloat16, loaded by a
process of its own.

Peak memory is the process's largest resident set, in which the interpreter, the libraries and mapped files count.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.checkpoints.contract import Format
from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.models.checkpoints.places import places_of, their_shape
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build

TITLE = "peak memory of loading a checkpoint in bfloat16"
OPTIONS = ("layers", "dtypes", "shard_gb")
LIMIT = 1.15
CONFIG: dict[str, Any] = {
    "d_model": 2560, "d_intermediate": 0, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [],
    "attn_cfg": {}, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True,
    "pad_vocab_size_multiple": 16, "tie_embeddings": True,
}  # fmt: skip
RANDOM = 1 << 24
"""Random numbers, repeated in all tensors."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per kind of file and dtype. options: layers (64), dtypes (bfloat16; with commas), shard_gb (1)."""
    config = {**CONFIG, "n_layer": int(options.get("layers", 64))}
    shard_bytes, rows = int(1e9 * float(options.get("shard_gb", 1))), []
    for kind in ("safetensors in shards", "one pytorch_model.bin"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.json").write_text(json.dumps(config))
            if kind == "safetensors in shards":
                _write_shards(folder, tensors(config), shard_bytes)
            else:
                torch.save(dict(tensors(config)), folder / "pytorch_model.bin")
            for dtype in options.get("dtypes", "bfloat16").split(","):
                rows.append({"file": kind, **_loaded(folder, dtype)})
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """How much of the peak is there before loading."""
    worst = max(row["peak / weights"] for row in rows)
    return [
        f"peak / weights at most {worst:.3f} (limit {LIMIT}); libraries count: `before` is the process without it"
    ]


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint, one after another, the numbers of the order of 0.02."""
    format: Format[Any] = FORMATS.convert("mamba_ssm", "format").create()
    model_config = build(ModelConfig, format.settings(config), "model")
    with torch.device("meta"):
        parameters = dict(LanguageModel(model_config).named_parameters())
    noise = (0.02 * torch.randn(RANDOM, generator=torch.Generator().manual_seed(0))).bfloat16()
    places = format.places(model_config)
    for name in places:
        shape = their_shape(places_of(places, name), parameters)
        n = int(torch.Size(shape).numel())
        yield name, noise.repeat(-(-n // RANDOM))[:n].view(shape).clone()


def _write_shards(folder: Path, found: Iterator[tuple[str, Tensor]], shard_bytes: int) -> None:
    shard: dict[str, Tensor] = {}
    weight_map: dict[str, str] = {}

    def write() -> None:
        name = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in found:
        shard[name] = tensor
        if sum(one.nbytes for one in shard.values()) >= shard_bytes:
            write()
    write()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _loaded(folder: Path, dtype: str) -> dict[str, Any]:
    """Load in a new process."""
    command = [sys.executable, "-m", "validation.checkpoints.memory", str(folder), dtype]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


def _peak() -> int:
    """The largest resident set of this process, bytes. (That of getrusage begins with the parent's.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(folder: str, dtype: str) -> None:
    """Load a checkpoint and print the memory that it took, as JSON."""
    import time

    published, before, begin = recognised(Path(folder)), _peak(), time.perf_counter()
    model = load_published(published, getattr(torch, dtype))
    weights, peak = sum(p.nbytes for p in model.parameters()), _peak()
    found = {"dtype": dtype, "parameters": sum(p.numel() for p in model.parameters()), "weights, GB": weights / 1e9}
    found |= {"before, GB": round(before / 1e9, 3), "peak, GB": round(peak / 1e9, 3)}
    found |= {"peak / weights": round(peak / weights, 4), "seconds": round(time.perf_counter() - begin, 1)}
    print(json.dumps({**found, "weights, GB": round(weights / 1e9, 3)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
