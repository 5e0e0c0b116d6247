"""Under FSDP2, a model with every op has the loss and gradients of the plain model: ops get parameters, not
shards."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build


@pytest.fixture
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_sharded_model_has_the_plain_models_loss_and_gradients(mesh):
    mixers = {"attention": {"head_dim": 16, "d_conv": 4}, "mamba2": {"head_dim": 16, "d_state": 8}}
    config = {"layout": "attention+mlp, mamba2", "d_model": 32, "d_ff": 48, "vocab_size": 64, "mixers": mixers}
    plain = LanguageModel(build(ModelConfig, config, "model")).initialise(0)
    sharded = copy.deepcopy(plain)
    for block in sharded.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    register_fsdp_forward_method(sharded, "loss")
    tokens = torch.randint(0, 64, (2, 40), generator=torch.Generator().manual_seed(0))
    weights = torch.ones(tokens.shape)
    want = _backward(plain, tokens, weights)
    got = _backward(sharded, tokens, weights)
    assert any(isinstance(p, DTensor) for p in sharded.parameters())
    assert torch.equal(got, want)
    for (name, a), (_, b) in zip(plain.named_parameters(), sharded.named_parameters(), strict=True):
        assert a.grad is not None
        assert torch.allclose(b.grad.full_tensor(), a.grad, rtol=1e-6, atol=1e-9), name


def _backward(model, tokens, weights):
    loss = model.loss(tokens, weights)[0]
    loss.backward()
    return loss.detach()
