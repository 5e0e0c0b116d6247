"""Names and shapes of the tensors in RWKV's own checkpoints (BlinkDL/RWKV-LM, .pth files), and of ours.

    from_release(tensors, version)      the tensors of a checkpoint -> a LanguageModel's parameters
    to_release(parameters, version)     the reverse

The model is `layout: rwkv6+mlp`, `mlp: rwkv6`, `norm: layer`, `embedding_norm: true`, `tie_embeddings: false` (or the
same with rwkv7). Vectors that mix channels have two leading dimensions of size 1 there, and several of them are one
parameter here.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lcprobe.errors import ConfigError

Version = Literal["rwkv6", "rwkv7"]


class Released(NamedTuple):
    """The released tensors that make one parameter. names: several are its rows. row: each is (1, 1, d_model)."""

    names: tuple[str, ...]
    row: bool = False


def _rows(*names: str) -> Released:
    return Released(names, row=True)


def _same(*names: str) -> dict[str, Released]:
    return {f"mixer.{name}.weight": Released((f"att.{name}.weight",)) for name in names}


MODEL = {
    "embedding.weight": Released(("emb.weight",)),
    "embedding_norm.weight": Released(("blocks.0.ln0.weight",)),
    "embedding_norm.bias": Released(("blocks.0.ln0.bias",)),
    "norm.weight": Released(("ln_out.weight",)),
    "norm.bias": Released(("ln_out.bias",)),
    "head.weight": Released(("head.weight",)),
}
"""Parameters outside the blocks."""
SHARED = {
    "norm.weight": Released(("ln1.weight",)),
    "norm.bias": Released(("ln1.bias",)),
    "norm2.weight": Released(("ln2.weight",)),
    "norm2.bias": Released(("ln2.bias",)),
    **_same("receptance", "key", "value"),
    "mixer.out_proj.weight": Released(("att.output.weight",)),
    "mixer.norm_weight": Released(("att.ln_x.weight",)),
    "mixer.norm_bias": Released(("att.ln_x.bias",)),
    "mlp.key.weight": Released(("ffn.key.weight",)),
    "mlp.out_proj.weight": Released(("ffn.value.weight",)),
}
"""Parameters of a block in both versions."""
BLOCKS: dict[Version, dict[str, Released]] = {
    "rwkv6": {
        **SHARED,
        **_same("gate"),
        "mixer.mix_x": _rows("att.time_maa_x"),
        "mixer.mix": _rows(*(f"att.time_maa_{name}" for name in "wkvrg")),
        "mixer.mix_down": Released(("att.time_maa_w1",)),
        "mixer.mix_up": Released(("att.time_maa_w2",)),
        "mixer.decay_base": _rows("att.time_decay"),
        "mixer.decay.down": Released(("att.time_decay_w1",)),
        "mixer.decay.up": Released(("att.time_decay_w2",)),
        "mixer.bonus": Released(("att.time_faaaa",)),
        "mlp.mix_k": _rows("ffn.time_maa_k"),
        "mlp.mix_r": _rows("ffn.time_maa_r"),
        "mlp.receptance.weight": Released(("ffn.receptance.weight",)),
    },
    "rwkv7": {
        **SHARED,
        "mixer.mix": _rows(*(f"att.x_{name}" for name in "rwkvag")),
        "mixer.decay_base": _rows("att.w0"),
        "mixer.decay.down": Released(("att.w1",)),
        "mixer.decay.up": Released(("att.w2",)),
        "mixer.rate_base": _rows("att.a0"),
        "mixer.rate.down": Released(("att.a1",)),
        "mixer.rate.up": Released(("att.a2",)),
        "mixer.first_base": _rows("att.v0"),
        "mixer.first.down": Released(("att.v1",)),
        "mixer.first.up": Released(("att.v2",)),
        "mixer.gate.down": Released(("att.g1",)),
        "mixer.gate.up": Released(("att.g2",)),
        "mixer.removal_key": _rows("att.k_k"),
        "mixer.key_rate": _rows("att.k_a"),
        "mixer.bonus": Released(("att.r_k",)),
        "mlp.mix_k": _rows("ffn.x_k"),
    },
}
"""Parameters of a block by version. Those of the value residual are absent in our first block; checkpoints may have
them there, unused."""
UNUSED = {f"blocks.0.att.{name}" for name in ("v0", "v1", "v2")}


def from_release(tensors: Mapping[str, Tensor], version: Version) -> dict[str, Tensor]:
    """A checkpoint's tensors as parameters of our model. Raises ConfigError where one is missing or unknown."""
    left, parameters = set(tensors) - UNUSED, {}
    for name, released in _names(_blocks_in(tensors), version):
        for one in released.names:
            if one not in tensors:
                raise ConfigError("checkpoint", f"no tensor {one}", f"the tensors of {version}")
        parts = [tensors[one] for one in released.names]
        parts = [part.reshape(part.shape[-1]) if released.row else part for part in parts]
        parameters[name] = torch.stack(parts) if len(parts) > 1 else parts[0]
        left -= set(released.names)
    if left:
        raise ConfigError("checkpoint", f"a tensor {min(left)}", f"the tensors of {version}")
    return parameters


def to_release(parameters: Mapping[str, Tensor], version: Version) -> dict[str, Tensor]:
    """The parameters of our model as a checkpoint's tensors. Raises KeyError where one is missing."""
    tensors = {}
    for name, released in _names(_blocks_in(parameters), version):
        value = parameters[name]
        for one, part in zip(released.names, value if len(released.names) > 1 else [value], strict=True):
            tensors[one] = part.reshape(1, 1, -1) if released.row else part
    return tensors


def _blocks_in(names: Mapping[str, Tensor]) -> int:
    """Number of blocks."""
    return 1 + max((int(name.split(".")[1]) for name in names if name.startswith("blocks.")), default=-1)


def _names(n_blocks: int, version: Version) -> Iterator[tuple[str, Released]]:
    """Every parameter of a model, and where it comes from."""
    yield from MODEL.items()
    for i in range(n_blocks):
        for name, released in BLOCKS[version].items():
            full = tuple(f"blocks.{i}.{one}" for one in released.names)
            if not UNUSED.intersection(full):
                yield f"blocks.{i}.{name}", Released(full, released.row)
