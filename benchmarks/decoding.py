"""One decoded token, from its id to its logits, beside transformers' Llama and Mamba2 of the same shape.

Both continue a prompt greedily, each with its own cache or state, token by token in turn; the least time is reported,
of the processor on a CPU (other work may share it). The floor is the least time that this machine's matrix products
or copies need to use every parameter and cached number once, both measured in the same run; "share of floor" is the
floor over our time.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels import Machine, timed
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import model_cost
from lcprobe.schema import build

TITLE = "decoding: milliseconds per token (all rows of a batch)"
OPTIONS = ("tokens",)
VOCAB, HEAD_DIM, D_STATE, CHUNK = 4096, 64, 128, 1024
SHAPES: list[dict[str, Any]] = [
    {"model": "attention", "d_model": d, "d_ff": 2 * d, "layers": 4, "kv_heads": kv, "batch": batch, "context": n}
    for d, kv, batch, n in (
        (256, 4, 1, 512), (256, 4, 1, 4096), (256, 4, 8, 4096), (256, 2, 1, 4096), (256, 2, 8, 4096),
        (512, 8, 1, 4096),
    )
] + [
    {"model": "mamba2", "d_model": d, "d_ff": None, "layers": 4, "kv_heads": None, "batch": batch, "context": 256}
    for d in (256, 512) for batch in (1, 8)
]  # fmt: skip


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per shape. options: tokens (40) that are decoded, after a tenth as many that warm up."""
    tokens, gpu = int(options.get("tokens", 40)), torch.cuda.is_available()
    machine, rows = Machine(gpu, time.process_time), []
    with torch.inference_mode():
        for shape in SHAPES:
            machine.measure()
            rows.append(_row(shape, tokens, "cuda" if gpu else "cpu"))
            print(rows[-1], flush=True)
        machine.measure()
    return [machine.judge(row) for row in rows]


def _row(shape: dict[str, Any], tokens: int, device: str) -> dict[str, Any]:
    prompt = torch.randint(0, VOCAB, (1, shape["context"]), generator=torch.Generator().manual_seed(0)).to(device)
    config = build(ModelConfig, _sizes(shape), "model")
    model = LanguageModel(config).initialise(0).to(device).eval()
    peer = _peer(shape).to(device).eval()
    steps = {"ours": _ours(model, prompt, shape["batch"]), "theirs": _theirs(peer, prompt, shape["batch"])}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(tokens + tokens // 10):
        for name, step in steps.items():
            times[name].append(timed(step, 1, device == "cuda", time.process_time))
    least = {name: 1e3 * min(taken[tokens // 10 :]) for name, taken in times.items()}
    cost, batch = model_cost(config, shape["context"]), shape["batch"]
    parameters = sum(p.numel() for p in model.parameters())
    flops = batch * (2 * parameters + 4 * shape["context"] * shape["d_model"] * shape["layers"] * bool(shape["d_ff"]))
    moved = 4 * parameters + batch * (cost.blocks.kv_bytes + 2 * cost.blocks.state_bytes)
    return {
        "model": f"{shape['model']} x {shape['layers']}",
        "d_model": shape["d_model"],
        "kv heads": shape["kv_heads"],
        "batch": batch,
        "context": shape["context"],
        "ours ms": round(least["ours"], 2),
        "transformers ms": round(least["theirs"], 2),
        "x transformers": f"{least['theirs'] / least['ours']:.2f}",
        "flops": flops,
        "bytes": moved,
    }


def _sizes(shape: dict[str, Any]) -> dict[str, Any]:
    mixers = {
        "attention": {"head_dim": HEAD_DIM, "n_kv_heads": shape["kv_heads"]},
        "mamba2": {"head_dim": HEAD_DIM, "d_state": D_STATE},
    }
    layer = "attention+mlp" if shape["model"] == "attention" else "mamba2"
    sizes = {"layout": f"{layer} x {shape['layers']}", "d_model": shape["d_model"], "d_ff": shape["d_ff"]}
    return {**sizes, "vocab_size": VOCAB, "mixers": {shape["model"]: mixers[shape["model"]]}}


def _peer(shape: dict[str, Any]) -> Any:
    """transformers' model of the same shape, with random weights."""
    import transformers

    d, common = shape["d_model"], {"num_hidden_layers": shape["layers"], "vocab_size": VOCAB}
    if shape["model"] == "mamba2":
        return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(
            hidden_size=d, num_heads=2 * d // HEAD_DIM, head_dim=HEAD_DIM, state_size=D_STATE, n_groups=1, expand=2,
            conv_kernel=4, tie_word_embeddings=True, **common,
        ))  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        hidden_size=d, num_attention_heads=d // HEAD_DIM, num_key_value_heads=shape["kv_heads"], head_dim=HEAD_DIM,
        intermediate_size=shape["d_ff"], max_position_embeddings=1 << 17, tie_word_embeddings=True, **common,
    ))  # fmt: skip


def _ours(model: LanguageModel, prompt: Tensor, batch: int) -> Callable[[], None]:
    """A step that decodes one token for each row of a batch, after a prompt (1, n) that all of them share."""
    state, hidden = model.new_state(1), None
    for part in prompt.split(CHUNK, dim=1):
        hidden, state = model.hidden(part, state=state)
    assert hidden is not None
    assert state is not None
    state, token = state.fork(batch), model.logits(hidden[:, -1]).argmax(-1, keepdim=True).expand(batch, 1)

    def step() -> None:
        nonlocal state, token
        hidden, state = model.hidden(token, state=state)
        token = model.logits(hidden[:, -1]).argmax(-1, keepdim=True)

    return step


def _theirs(model: Any, prompt: Tensor, batch: int) -> Callable[[], None]:
    """The same with transformers' cache, which is prefilled for all rows at once where it cannot be repeated."""
    if hasattr(model.config, "state_size"):
        out = model(input_ids=prompt.expand(batch, -1), use_cache=True)
        name, cache = "cache_params", out.cache_params
    else:
        cache, name, out = None, "past_key_values", None
        for part in prompt.split(CHUNK, dim=1):
            out = model(input_ids=part, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
        assert out is not None
        assert cache is not None
        cache.batch_repeat_interleave(batch)
    token = out.logits[:, -1].argmax(-1, keepdim=True).expand(batch, 1)

    def step() -> None:
        nonlocal token
        out = model(input_ids=token, use_cache=True, logits_to_keep=1, **{name: cache})
        token = out.logits[:, -1].argmax(-1, keepdim=True)

    return step
