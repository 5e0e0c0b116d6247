"""Small RWKV-6 and RWKV-7 models as RWKV-LM writes them, with the logits of the author's package; and RWKV-6 under
the names of RWKV's own code for transformers, whose tensors are those of RWKV-LM."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lcprobe.models.language_model import LanguageModel
from validation.checkpoints.cases import Case, Logits
from validation.oracles.rwkv import D_MODEL, HEAD_DIM, N_LAYERS, VOCAB, Version, model_of, package_model, save_release

HUB_RANKS = {"d_mix": 32, "d_decay": 64}
RENAMED = {"emb.": "rwkv.embeddings.", "ln_out.": "rwkv.ln_out.", "blocks.": "rwkv.blocks.", ".ln0.": ".pre_ln.",
           ".att.": ".attention.", ".ffn.": ".feed_forward."}  # fmt: skip
"""What that code calls the tensors of RWKV-LM, by parts of names."""
CONFIG = {
    "model_type": "rwkv6", "architectures": ["Rwkv6ForCausalLM"], "vocab_size": VOCAB, "hidden_size": D_MODEL,
    "attention_hidden_size": D_MODEL, "intermediate_size": 48, "num_hidden_layers": N_LAYERS, "head_size": HEAD_DIM,
    "head_size_divisor": 8, "layer_norm_epsilon": 1e-5, "rescale_every": 6, "tie_word_embeddings": False,
}  # fmt: skip


def release(folder: Path, version: Version) -> Logits:
    """One .pth file."""
    ours = model_of(version)
    save_release(ours, folder / "model.pth")
    return partial(package_logits, ours, version)


def hub(folder: Path) -> Logits:
    """A folder with config.json."""
    ours = model_of("rwkv6", HUB_RANKS)
    save_release(ours, folder / "model.pth")
    named: Mapping[str, Tensor] = torch.load(folder / "model.pth", weights_only=True)
    (folder / "model.pth").unlink()
    save_file({_renamed(name): tensor.contiguous() for name, tensor in named.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return partial(package_logits, ours, "rwkv6")


def _renamed(name: str) -> str:
    for theirs, other in RENAMED.items():
        name = name.replace(theirs, other)
    return name


def package_logits(ours: LanguageModel, version: Version, tokens: Tensor) -> Tensor:
    """The package's logits for a model with our weights, row by row."""
    with package_model(ours, version) as theirs:
        rows = [theirs.forward(row.tolist(), None, full_output=True)[0].view(len(row), VOCAB) for row in tokens]
    return torch.stack(rows)


CASES = [
    Case("rwkv", "RWKV-6", "rwkv", partial(release, version="rwkv6")),
    Case("rwkv", "RWKV-7", "rwkv", partial(release, version="rwkv7")),
    Case("rwkv_hub", "RWKV-6, renamed", "rwkv", hub),
]
