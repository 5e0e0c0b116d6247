"""Names and shapes of RWKV's own checkpoints: every parameter of a model has its place there, and comes back."""

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.checkpoints.rwkv import from_release, to_release
from validation.oracles.rwkv import D_MODEL, VERSIONS, model_of

SHAPES = {
    "rwkv6": {
        "blocks.1.att.time_maa_w": (1, 1, D_MODEL),
        "blocks.1.att.time_maa_w1": (D_MODEL, 5 * 4),
        "blocks.1.att.time_maa_w2": (5, 4, D_MODEL),
        "blocks.1.att.time_decay": (1, 1, D_MODEL),
        "blocks.1.att.time_faaaa": (2, 16),
        "blocks.1.ffn.time_maa_r": (1, 1, D_MODEL),
    },
    "rwkv7": {
        "blocks.1.att.x_a": (1, 1, D_MODEL),
        "blocks.1.att.v0": (1, 1, D_MODEL),
        "blocks.1.att.v2": (4, D_MODEL),
        "blocks.1.att.r_k": (2, 16),
        "blocks.1.ffn.x_k": (1, 1, D_MODEL),
    },
}
"""As in the release, at the ranks of `model_of`."""


@pytest.mark.parametrize("version", VERSIONS)
def test_parameters_come_back(version):
    model, parameters = model_of(version)
    tensors = to_release(parameters, version)
    assert {name: tuple(tensors[name].shape) for name in SHAPES[version]} == SHAPES[version]
    if version == "rwkv7":  # the release has them in the first block, too, and does not use them
        tensors |= {f"blocks.0.att.v{i}": torch.zeros(1) for i in range(3)}
    back = from_release(tensors, version)
    assert set(back) == set(parameters)
    assert all(torch.equal(back[name], value) for name, value in parameters.items())
    assert {name: p.shape for name, p in model.named_parameters()}.items() <= {
        n: p.shape for n, p in back.items()
    }.items()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda t: t.pop("blocks.2.att.key.weight"), "'no tensor blocks.2.att.key.weight'; allowed: the tensors of rwkv6"),
        (lambda t: t.update({"blocks.0.att.q": t["emb.weight"]}), "'a tensor blocks.0.att.q'; allowed: the tensors of rwkv6"),
    ],
)  # fmt: skip
def test_another_set_of_tensors_is_refused(change, line):
    tensors = to_release(model_of("rwkv6")[1], "rwkv6")
    change(tensors)
    with pytest.raises(ConfigError) as error:
        from_release(tensors, "rwkv6")
    assert str(error.value) == f"checkpoint: given {line}"
