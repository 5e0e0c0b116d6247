"""Attention with a convolution as mamba_ssm decodes it, by its own code: `compat.mamba_ssm_conv_bug` must give the
logits of its steps, and what we decode without it must not.

flash-attn's function on the cache is replaced by a plain one; the cache and its history are the package's.
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.engines.mamba_ssm_cache import MambaSsmCache
from validation.checkpoints.cases import VOCAB, tokens_of
from validation.checkpoints.mamba_ssm_models import ATTENTION, SIZES, built

NAME = "mamba_ssm: attention with a convolution, decoded with its fault, mamba-ssm"
CONFIG: dict[str, Any] = {**SIZES, "attn_layer_idx": [0, 1, 2], "attn_cfg": ATTENTION, "ssm_cfg": {}}
PROMPTS, ANSWER = (2, 3, 40), 12
"""Tokens of prompts, of which the first is shorter than the convolution, and of answers."""


@torch.no_grad()
def row(source: Path | None) -> dict[str, Any]:
    """Largest differences of the logits of answers, their tokens given: of the prompt's last token (whole), and under
    the switch, read in chunks and token by token. source: a folder that has the package."""
    facts = {"format": "mamba_ssm", "architecture": "attention with a convolution, decoded", "peer": "mamba-ssm"}
    found, right = dict.fromkeys(("whole", "chunks", "tokens", "largest logit"), 0.0), 0.0
    with tempfile.TemporaryDirectory() as name:
        try:
            theirs = built(CONFIG, source)
        except ImportError as error:
            return {**facts, "parameters": None, **dict.fromkeys(found), "note": f"not compared: {error}"}
        theirs.save_pretrained(Path(name))
        ours = load_published(recognised(Path(name)))
    faulty = MambaSsmCache(ours)
    for n in PROMPTS:
        tokens = tokens_of(n + ANSWER)
        want = stepwise(theirs, tokens, n)
        read = ((faulty, 5), (faulty, 1), (ours, 5))
        chunks, steps, plain = (answer_logits(model, tokens, n, step) for model, step in read)
        found["whole"] = max(found["whole"], float((plain - want)[:, 0].abs().max()))
        found["chunks"] = max(found["chunks"], float((chunks - want).abs().max()))
        found["tokens"] = max(found["tokens"], float((steps - want).abs().max()))
        found["largest logit"] = max(found["largest logit"], float(want.abs().max()))
        right = max(right, float((plain - want).abs().max()))
    parameters = sum(p.numel() for p in ours.parameters())
    return {**facts, "parameters": parameters, **found, "note": f"decoded rightly, {right:.2g} from the package"}


def stepwise(model: Any, tokens: Tensor, n: int) -> Tensor:
    """The package's logits after a prompt of n tokens and after each token of the answer, one call each."""
    type(model.backbone.layers[0].mixer).forward.__globals__["flash_attn_with_kvcache"] = _attention
    cache = SimpleNamespace(
        max_seqlen=tokens.shape[1], seqlen_offset=0, batch_size_offset=0, lengths_per_sample=None,
        key_value_memory_dict={},
    )  # fmt: skip
    parts = []
    for part in (tokens[:, :n], *tokens[:, n:].split(1, dim=1)):
        parts.append(model(part, inference_params=cache).logits[:, -1:, :VOCAB])
        cache.seqlen_offset += part.shape[1]
    return torch.cat(parts, dim=1)


def answer_logits(model: ProbedModel, tokens: Tensor, n: int, step: int) -> Tensor:
    """Our logits at the same positions, prompt and answer read in chunks of `step`."""
    state, hidden = model.new_state(len(tokens)), None
    for part in tokens[:, :n].split(step, dim=1):
        hidden, state = model.hidden(part, state=state)
    assert hidden is not None
    parts, state = [hidden[:, -1:]], model.prompt_ended(state)
    for part in tokens[:, n:].split(step, dim=1):
        hidden, state = model.hidden(part, state=state)
        parts.append(hidden)
    return model.logits(torch.cat(parts, dim=1))[..., :VOCAB]


def _attention(q: Tensor, keys: Tensor, values: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
    """flash-attn's function for one token: it writes k and v into the cache, and attends to all of it so far."""
    n = given["cache_seqlens"]
    keys[:, n : n + 1], values[:, n : n + 1] = k, v
    heads = q.shape[2] // k.shape[2]
    k, v = (t[:, : n + 1].repeat_interleave(heads, 2).transpose(1, 2) for t in (keys, values))
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, scale=given["softmax_scale"]).transpose(1, 2)
