"""Estimated caches of transformers' classes, against those that the classes make."""

import pytest
import torch

from lcprobe.studies.evaluation.costs.attention_layers import attention_cost

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
JAMBA = {"attn_layer_period": 4, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("llama", {**SIZES, "num_key_value_heads": 2}),
        ("gpt2", {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
        ("jamba", {**SIZES, "num_key_value_heads": 2, **JAMBA}),
    ],
)
def test_keys_and_values_are_those_of_the_cache(kind, own):
    """Jamba: of one layer in four; the states of the others, whose size is fixed, are not counted."""
    transformers = pytest.importorskip("transformers")
    from lcprobe.probing.engines.transformers import TransformersModel

    config = transformers.AutoConfig.for_model(kind, **own, **IDS)
    model = TransformersModel(transformers.AutoModelForCausalLM.from_config(config))
    _, state = model.hidden(torch.ones(1, 48, dtype=torch.int64), state=model.new_state(1))
    cached = sum(t.numel() * 4 for t in state.tensors() if t.ndim == 4)
    found = attention_cost(model.settings, getattr(config, "layer_types", None), 48)
    assert found is not None
    assert found.kv_bytes == cached > 0


def test_scores_and_values_cost_what_the_visible_keys_are():
    settings = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "sliding_window": 3}
    full, sliding = (attention_cost(settings, [f"{kind}_attention"] * 2, 8) for kind in ("full", "sliding"))
    assert full is not None
    assert sliding is not None
    assert full.flops == 2 * 4 * 32 * (1 + 2 + 3 + 4 + 5 + 6 + 7 + 8) / 8
    assert sliding.flops == 2 * 4 * 32 * (1 + 2 + 3 * 6) / 8


@pytest.mark.parametrize(
    ("settings", "types"),
    [
        ({"kv_lora_rank": 8}, None),
        ({"mamba_d_state": 8}, None),
        ({}, ["linear_attention"] * 2),
        ({"num_attention_heads": None}, None),
    ],
)
def test_what_a_config_does_not_tell_is_unknown(settings, types):
    known = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
    assert attention_cost(known, None, 8) is not None
    assert attention_cost(known | settings, types, 8) is None
