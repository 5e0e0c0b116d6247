"""The kernel paths of a plan: every mixer and encoding tells its calls on the meta device, and a name that does not fit
is refused before anything runs."""

from typing import get_args, get_type_hints

import pytest
import torch
from lcprobe_kernels import backends

from lcprobe.errors import ConfigError
from lcprobe.models.config import KernelsConfig
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.studies.planning.kernel_paths import HEAD, READING, TRAINING, calls_of, check_backend_fits, path_lines
from lcprobe.studies.planning.plan import make_plan
from tests.tiny import TINY

SM_90 = ("cuda", (9, 0))


def plan_of(layout, backend="auto", deterministic=False, **model):
    settings = {"layout": layout, "d_model": 64, "d_ff": 64, "mixers": {"attention": {"head_dim": 16, **model}}}
    if layout.startswith("mamba3"):
        settings["mixers"] |= {"mamba3": {"definition": "softplus"}}
    data = {key: value for key, value in TINY.items() if key not in ("grid", "match")}
    data["train"] = {**data["train"], "deterministic": deterministic}
    return make_plan({**data, "model": settings, "match": {"budget": None}, "kernels": {"backend": backend}})


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr(backends, "unusable", lambda name, try_import=False: None)


@pytest.mark.parametrize("mixer", sorted(name for name in MIXERS.names if not name.startswith("fla:")))
def test_every_mixer_tells_its_calls(mixer):
    calls, gaps = calls_of(plan_of(f"{mixer} x 2").runs[0].config)
    assert not gaps
    assert {c.phase for c in calls} == {TRAINING, READING}
    assert {c.layer for c in calls} >= {HEAD}
    assert {c.request.device for c in calls} == {"meta"}


@pytest.mark.parametrize("encoding", sorted(POSITIONAL.names))
def test_every_encoding_has_a_path_on_a_gpu(encoding, all_installed):
    if POSITIONAL.load(encoding).family == "absolute":
        pytest.skip("set for the whole model")
    calls, gaps = calls_of(plan_of("attention x 1", positional={"type": encoding}).runs[0].config)
    assert not gaps
    for called in calls:
        if called.request.op == "attention":
            request = called.request
            kind = type(request)(request.op, "cuda", torch.bfloat16, request.needs, request.head_dim, (9, 0))
            assert backends.choice_for(kind, "auto", gpu=True).backend in ("flash_attn", "sdpa", "triton")


@pytest.mark.parametrize(
    ("model", "want"),
    [
        ({}, "flash_attn"),
        ({"window": 8}, "flash_attn"),
        ({"positional": {"type": "alibi"}}, "flash_attn"),
        ({"positional": {"type": "alibi", "learned": True}}, "triton"),
        ({"positional": {"type": "t5"}}, "triton"),
        ({"positional": {"type": "fox"}}, "triton"),
        ({"window": 8, "sinks": 2}, "triton"),
        ({"sink_logit": True}, "flash_attn"),
        ({"n_heads": 4, "n_kv_heads": 2}, "flash_attn"),
        ({"head_dim": 20, "n_heads": 3}, "triton"),
    ],
)
def test_the_encoding_decides_whether_flash_attn_serves_a_layer(model, want, all_installed):
    lines = path_lines(plan_of("attention x 2", **model), *SM_90, torch.bfloat16)
    line = next(line for line in lines if line.startswith("training, attention"))
    assert f": {want} in attention (layers 0-1)" in line


@pytest.mark.parametrize(("deterministic", "path"), [(False, "fla"), (True, "torch")])
def test_deterministic_training_leaves_out_kernels_whose_gradients_do_not_repeat(deterministic, path, all_installed):
    plan = plan_of("gla x 1", deterministic=deterministic)
    lines = path_lines(plan, *SM_90, torch.bfloat16)
    (line,) = [line for line in lines if line.startswith("training, gated_linear_attention")]
    assert f": {path} in gla" in line
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_config_has_the_names_of_all_backends():
    assert get_args(get_type_hints(KernelsConfig)["backend"]) == backends.BACKENDS


def test_where_the_meta_device_ends_the_report_says_so(all_installed, monkeypatch):
    look = lambda self, q, keys, **more: keys.positions[0].item()  # noqa: E731
    monkeypatch.setattr(POSITIONAL.load("none"), "attend", look)
    lines = path_lines(plan_of("mamba2 x 1, attention x 1", positional={"type": "none"}), *SM_90)
    gaps = [line for line in lines if "not known" in line]
    assert (
        gaps[0]
        == "training: not known from layer 1 on (Tensor.item() cannot be called on meta tensors) of mamba2-attention"
    )


def test_a_named_backend_that_cannot_serve_a_layer_is_refused_with_the_layer(all_installed, monkeypatch):
    monkeypatch.setattr(backends, "missing", lambda name, gpu=None: None)
    fits = plan_of("attention x 1, mamba2 x 1", "flash_attn")
    with pytest.raises(ConfigError, match="no float32"):
        check_backend_fits(fits, *SM_90)
    biased = plan_of("mamba2 x 1, attention x 1", "flash_attn", positional={"type": "t5"})
    for run in biased.runs:
        object.__setattr__(run.config.train, "precision", "bf16")
    with pytest.raises(ConfigError) as caught:
        check_backend_fits(biased, *SM_90)
    text = str(caught.value)
    assert (
        "flash_attn for attention: no bias by distance but ALiBi's (model mamba2-attention, layer 1, training)"
        in text
    )
    assert "\n" not in text
