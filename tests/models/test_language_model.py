"""LanguageModel: loss without full logits, hidden states, initialisation by name, layers."""

import pytest
import torch
from torch.nn import functional as F

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parameters import no_decay_names
from lcprobe.schema import build

SMALL = {"layout": "attention+mlp, mamba2", "d_model": 16, "d_ff": 24, "vocab_size": 45,
         "mixers": {"attention": {"head_dim": 8, "d_conv": 4}, "mamba2": {"head_dim": 8, "d_state": 4}}}  # fmt: skip


def make(**changes):
    return LanguageModel(build(ModelConfig, {**SMALL, **changes}, "model")).initialise(0)


def test_loss_is_the_weighted_mean_of_plain_cross_entropy():
    model = make().double()
    tokens, weights = torch.randint(0, 45, (3, 12)), torch.rand(3, 12, dtype=torch.float64)
    weights[weights < 0.4] = 0
    loss, rows, index = model.loss(tokens, weights)
    hidden, _ = model.hidden(tokens)
    logits = hidden @ model.embedding.weight.T  # padded rows compete too, as in training
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
    w = weights[:, 1:].flatten()
    assert torch.allclose(loss, (each * w).sum() / w.sum(), rtol=1e-12)
    assert torch.allclose(rows, each[index].detach())
    assert (w[index] > 0).all()
    assert len(index) == int((w > 0).sum())


def test_initial_values_depend_on_seed_and_name_only():
    a, b, other = make(), make(), LanguageModel(make().config).initialise(1)
    for (name, p), q, r in zip(a.named_parameters(), b.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert torch.equal(p, r) == bool((p == p.flatten()[0]).all()), (
            name
        )  # constant values do not depend on the seed
    longer = make(layout="attention+mlp, mamba2, attention+mlp")
    assert torch.equal(longer.blocks[1].mixer.in_proj.weight, a.blocks[1].mixer.in_proj.weight)


def test_initial_values_match_the_published_family():
    model = make(layout="mamba2 x 4", d_model=64, mixers={"mamba2": {}}, initializer_range=0.02)
    mixer = model.blocks[0].mixer
    dt = F.softplus(mixer.dt_bias)
    assert ((dt >= 0.001 * 0.999) & (dt <= 0.1 * 1.001)).all()
    assert ((mixer.A_log.exp() >= 1) & (mixer.A_log.exp() <= 16)).all()
    assert (mixer.D == 1).all()
    assert abs(float(model.embedding.weight.detach().std()) - 0.02) < 0.002
    bound = 64**-0.5
    assert float(mixer.in_proj.weight.abs().max()) <= bound
    assert abs(float(mixer.out_proj.weight.abs().max()) - 128**-0.5 / 2) < 0.002  # / sqrt(4 layers)


def test_norms_biases_and_decays_have_no_weight_decay():
    names = no_decay_names(make())
    assert {"blocks.1.mixer.A_log", "blocks.1.mixer.dt_bias", "blocks.1.mixer.D", "blocks.0.norm.weight"} <= names
    assert {"blocks.0.mixer.conv_weight", "blocks.1.mixer.norm_weight", "norm.weight"} <= names
    assert not {"embedding.weight", "blocks.0.mixer.in_proj.weight", "blocks.0.mlp.up_gate.weight"} & names


def test_n_layers_repeats_and_cuts_the_pattern():
    model = make(layout="mamba2 x 2, attention", n_layers=5)
    kinds = [type(block.mixer).__name__ for block in model.blocks]
    assert kinds == ["Mamba2", "Mamba2", "Attention", "Mamba2", "Mamba2"]


def test_attn_layer_idx_selects_attention_layers():
    model = make(layout="mamba2 x 4", attn_layer_idx=[1, 3])
    assert [type(block.mixer).__name__ for block in model.blocks] == ["Mamba2", "Attention"] * 2


@pytest.mark.parametrize("residual_in_fp32", [True, False])
def test_hidden_states_are_the_residual_stream_after_each_block(residual_in_fp32):
    """Equal to models of only the first blocks, whole and in chunks; the final norm of the last is `hidden`."""
    layout, tokens = ["attention+mlp", "mamba2", "attention"], torch.randint(0, 45, (2, 11))
    model = make(layout=", ".join(layout), residual_in_fp32=residual_in_fp32).double()
    with torch.no_grad():
        stream, none = model.hidden_states(tokens)
        assert none is None
        assert torch.equal(stream[0], model.embedding(tokens))
        for depth in range(1, 4):
            shallow = make(layout=", ".join(layout[:depth]), residual_in_fp32=residual_in_fp32).double()
            shallow.load_state_dict({k: v for k, v in model.state_dict().items() if k in shallow.state_dict()})
            assert (shallow.norm(stream[depth]) - shallow.hidden(tokens)[0]).abs().max() < 1e-12
        first, state = model.hidden_states(tokens[:, :4], state=model.new_state(2))
        second, _ = model.hidden_states(tokens[:, 4:], state=state)
        for whole, *parts in zip(stream, first, second, strict=True):
            assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("layout", "changes", "with_state"),
    [
        ("attention+mlp, mamba2", {}, False),
        ("attention+mlp, mamba2", {}, True),
        ("attention+mlp x 2", {"positional": "tape"}, False),  # layers pass a carry on
    ],
)
def test_recomputed_blocks_give_the_same_gradients_with_less_memory(layout, changes, with_state):
    """Gradients are equal to the bit, and fewer bytes are kept for the backward pass."""
    model = make(layout=layout, **changes)
    tokens = torch.randint(0, 45, (2, 32), generator=torch.Generator().manual_seed(0))
    gradients, kept = [], []
    for model.recompute in (False, True):
        bytes_ = 0

        def pack(tensor):
            nonlocal bytes_
            bytes_ += tensor.numel() * tensor.element_size()
            return tensor

        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            state = model.new_state(2) if with_state else None
            loss, _, _ = model.loss(tokens, torch.ones(2, 32), state=state)
        kept.append(bytes_)
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert all(torch.equal(gradients[1][name], gradient) for name, gradient in gradients[0].items())
    assert all(g.abs().max() > 0 for name, g in gradients[0].items() if name.endswith("proj.weight"))
    assert kept[1] < kept[0] / 2
