"""The replication from end to end, on tiny random checkpoints of the study's eight shapes.

Each checkpoint is written by the peers' own code where that runs here: mamba_ssm (where its source is given; else by
its published names and shapes), transformers' Llama and RecurrentGemma; RWKV's by our exporter to the names on the
hub. The configs of configs/paper are scaled down to short lengths and few samples, evaluated as a user would, and the
chapter "Published and ours" has to have every cell that is due. Random weights retrieve nothing: what is shown is the
way, not the numbers.
"""

import csv
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lcprobe.analysis.published.tables import MEAN, NEEDLE, PublishedCell, cells, models
from lcprobe.cli.commands import evaluate_main
from lcprobe.config import load
from lcprobe.dialect import write_yaml
from lcprobe.errors import LcprobeError
from lcprobe.lengths import LENGTH
from lcprobe.models.checkpoints.export import export
from lcprobe.models.checkpoints.known import FACTS_FILE, known
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build, plain
from validation.checkpoints.mamba_ssm_models import ATTENTION, written
from validation.checkpoints.mamba_ssm_models import saved as saved_by_mamba_ssm
from validation.checkpoints.transformers_models import saved

TITLE = "the published study, end to end on tiny checkpoints"
GROUP = ("config",)
"""Configs that are not asked for keep their rows in the results."""
OPTIONS = ("folder", "mamba_ssm", "n", "longest", "continuation", "only")
CONFIGS = {"tables-1-7-19": ("1", "7-19"), "tables-2-3": ("2", "3"), "table-4": ("4",)}
"""Configs, and the published tables whose cells each has."""
DEFAULTS = {"continuation": "8", "n": "2", "longest": "1024"}
VOCAB, WIDTH = 1024, 32
TOKENIZER = "shipped-1024"
MAMBA_SSM: dict[str, Any] = {
    "d_model": WIDTH, "n_layer": 2, "vocab_size": VOCAB, "pad_vocab_size_multiple": 16, "d_intermediate": 0,
    "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": False,
    "tie_embeddings": True, "ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_state": 16},
}  # fmt: skip
HEADS: dict[str, Any] = {**ATTENTION, "num_heads": 4, "head_dim": 8}
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "intermediate_size": 48, "max_position_embeddings": 4096, "initializer_range": 0.05,
}  # fmt: skip
GRIFFIN: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "lru_width": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 96, "attention_window_size": 256,
    "logits_soft_cap": 30.0, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}  # fmt: skip
RWKV: dict[str, Any] = {
    "layout": "rwkv6+mlp", "n_layers": 2, "d_model": WIDTH, "d_ff": 96, "vocab_size": VOCAB, "mlp": "rwkv6",
    "norm": "layer", "embedding_norm": True, "tie_embeddings": False,
    "mixers": {"rwkv6": {"head_dim": 8, "d_mix": 32, "d_decay": 64}},
}  # fmt: skip
CHAT = (
    "{{ bos_token }}<start_of_turn>user\n{{ messages[0]['content'] }}<end_of_turn>\n"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Of the tuned RecurrentGemma."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per config. options: folder (kept; default: a temporary one), mamba_ssm (a folder with its source), n
    (samples), longest (tokens, 1,024 or more), continuation (greedy tokens, or ruler), only (a config)."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.get("folder", temporary)).absolute()
        source = Path(options["mamba_ssm"]) if "mamba_ssm" in options else None
        checkpoints = write_checkpoints(folder / "checkpoints", source)
        rows = []
        for name, tables in CONFIGS.items():
            if options.get("only", name) == name:
                rows.append(_replicated(name, tables, checkpoints, folder, options))
        return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Whether every cell that is due is there, and what of the published tables was not walked."""
    complete = sum(row["cells shown"] == row["cells due"] for row in rows)
    said = [f"{complete} of {len(rows)} configs have every cell that is due beside its published one"]
    return said + [f"{row['config']}, not walked: {row['not walked']}" for row in rows if row["not walked"]]


def write_checkpoints(folder: Path, mamba_ssm: Path | None = None) -> dict[str, Path]:
    """A folder for each of the eight, with weights, facts and prompt template, by the study's abbreviations."""
    made = {}
    for name, (_, write) in _writers(mamba_ssm).items():
        hub_name = models()[name].checkpoint
        made[name] = folder / hub_name.split("/")[1]
        if not made[name].is_dir():
            if name != "RWKV":  # an export makes its folder
                made[name].mkdir(parents=True)
            write(made[name])
            facts = replace(known()[hub_name], tokenizer=TOKENIZER, bos=None, revision=None)
            (made[name] / FACTS_FILE).write_text(write_yaml(plain(facts)), encoding="utf-8")
            if name == "RG-IT":
                template = {"chat_template": CHAT, "bos_token": "<|bos|>"}
                (made[name] / "tokenizer_config.json").write_text(json.dumps(template))
    return made


def _writers(mamba_ssm: Path | None) -> dict[str, tuple[str, Callable[[Path], Any]]]:
    """Who writes each checkpoint, and how."""
    trio = {
        "Mamba2": MAMBA_SSM,
        "M2A": {**MAMBA_SSM, "n_layer": 3, "attn_layer_idx": [1], "attn_cfg": HEADS},
        "TPP": {**MAMBA_SSM, "attn_layer_idx": [0, 1], "d_intermediate": 64, "ssm_cfg": {},
                "attn_cfg": {**HEADS, "d_conv": 0, "rotary_emb_dim": 8}},
    }  # fmt: skip
    by_package = partial(saved_by_mamba_ssm, source=mamba_ssm)
    write_trio, who = (by_package, "mamba-ssm") if mamba_ssm else (partial(written, definition=None), "names, shapes")
    griffin = ("transformers", partial(saved, kind="recurrent_gemma", prefix="RecurrentGemma", settings=GRIFFIN))
    llama = ("transformers", partial(saved, kind="llama", prefix="Llama", settings=LLAMA))
    return {
        **{name: (who, partial(write_trio, config=config)) for name, config in trio.items()},
        **dict.fromkeys(("RG", "RG-IT"), griffin),
        **dict.fromkeys(("SL", "SL-IT"), llama),
        "RWKV": ("lcprobe", _rwkv),
    }


def _rwkv(folder: Path) -> None:
    model = LanguageModel(build(ModelConfig, RWKV, "model")).initialise(0)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    export(model, "rwkv_hub", folder)


def _replicated(
    name: str, tables: tuple[str, ...], checkpoints: Mapping[str, Path], folder: Path, options: Mapping[str, str]
) -> dict[str, Any]:
    config = scaled(name, checkpoints, folder, options)
    path = folder / f"{name}.yaml"
    path.write_text(write_yaml(config), encoding="utf-8")
    code = evaluate_main([str(path)])
    if code:
        raise LcprobeError(f"{path}: evaluate.py ended with {code}")
    out = folder / "runs" / config["study"]["name"]
    with (out / "tables" / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = {(r["table"], r["published_model"], r["task"], r["format"], r["length"], r["depth"]) for r in rows}
    named = {models()[m].checkpoint.split("/")[1]: m for m in checkpoints}
    probed = {named[Path(one["address"]).name] for one in config["study"]["models"]}
    lengths = {int(LENGTH.convert(x, "").number) for grid in config["probe"]["grids"] for x in grid["lengths"]}
    published = [c for c in cells() if c.table in tables]
    walked = [c for c in published if c.model in probed and c.length in lengths]
    due = {_place(c) for c in walked}
    page = (out / "report.html").read_text(encoding="utf-8")
    return {
        "config": name,
        "checkpoints": len(probed),
        "with cells": len({c.model for c in walked}),
        "variants": len({row["model"] for row in rows}),
        "rows": len(rows),
        "published cells": len(published),
        "cells due": len(due),
        "cells shown": len({place for place in shown if place[0] in tables} & due),
        "by substring": sum(row["scored_by"] == "substring" for row in rows),
        "with difference": sum(bool(row["difference"]) for row in rows),
        "marked": sum(bool(row["marks"]) for row in rows),
        "chapter": "Published and ours" in page,
        "not walked": _not_walked(published, walked),
    }


def _not_walked(published: Sequence[PublishedCell], walked: Sequence[PublishedCell]) -> str:
    """Tables and lengths without a cell, and models that have none at all; empty where all are walked."""
    seen = {(c.table, c.length) for c in walked}
    rest = sorted({(c.table, c.length) for c in published} - seen)
    by_table: dict[str, list[str]] = {}
    for table, length in rest:
        by_table.setdefault(table, []).append(f"{length:,}")
    texts = [
        f"Table{'s' if '-' in table else ''} {table} at {', '.join(of)} tokens" for table, of in by_table.items()
    ]
    without = sorted({c.model for c in published} - {c.model for c in walked})
    return "; ".join([*texts, *([f"no cell of {', '.join(without)}"] if without else [])])


def scaled(name: str, checkpoints: Mapping[str, Path], folder: Path, options: Mapping[str, str]) -> dict[str, Any]:
    """A config of configs/paper with local checkpoints, short lengths and few samples."""
    config = load([f"configs/paper/{name}.yaml"], [])
    by_address = {models()[m].checkpoint: str(path) for m, path in checkpoints.items()}
    addresses = [address.removeprefix("hf:").split("@")[0] for address in config["study"]["models"]]
    config["study"]["models"] = [{"address": by_address[address]} for address in addresses]
    config["study"]["folder"] = str(folder / "runs")
    config["data"] = {"folder": str(folder / "data")}
    config["track"] = {"wandb": "off"}
    continuation, n, longest = (
        options.get("continuation", "8"),
        int(options.get("n", 2)),
        options.get("longest", "1024"),
    )
    probe = config["probe"]
    probe |= {"precision": "32", "weights": "32", "batch_tokens": 16_384}
    probe["continuation"] = continuation if continuation == "ruler" else int(continuation)
    for grid in probe["grids"]:
        tokens = {length: LENGTH.convert(length, "lengths").number for length in grid["lengths"]}
        grid["lengths"] = [x for x, of in tokens.items() if of <= int(longest)] or [
            min(tokens, key=tokens.__getitem__)
        ]
        grid["n"] = n
    return config


def _place(cell: PublishedCell) -> tuple[str, ...]:
    formats = ", ".join(map(str, cell.formats))
    depth = "" if cell.depth is None else str(cell.depth)
    assert cell.task != MEAN or not formats
    assert (cell.task == NEEDLE) == bool(formats)
    return cell.table, cell.model, cell.task, formats, str(cell.length), depth
