"""The memory that a plan names is what a training step takes."""

import gc
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from lcprobe.data.config import DataConfig
from lcprobe.models.mixers import MIXERS
from lcprobe.models.parts import model_cost
from lcprobe.schema import build
from lcprobe.studies.planning.memory import kept
from lcprobe.studies.planning.memory.estimate import estimated
from lcprobe.studies.planning.memory.kept import KeptUnknown, kept_by_blocks
from lcprobe.training.config import TrainConfig
from validation.forked import run_forked
from validation.training_memory import CASES
from validation.training_memory.alone import peak_computed
from validation.training_memory.divided import STEPS, peak_of_process
from validation.training_memory.sizes import config_of

SIZE = replace(CASES[0].size, d_model=128, d_ff=320, layers=6, attention=(1,), vocab=2048, seqlen=256)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("hybrid", {}),
        ("hybrid", {"recompute": True, "accumulate": 2}),
        ("mamba1", {"recompute": True}),  # goes by chunks, the shorter the more rows there are
        ("delta_product", {"recompute": True}),  # has more inside its op than it keeps
    ],
)
def test_the_estimate_is_within_a_tenth_of_what_is_measured(model, given):
    config, tokens = config_of(SIZE, model), SIZE.rows * SIZE.seqlen * given.get("accumulate", 1)
    train = build(
        TrainConfig, {"context_length": SIZE.seqlen, "batch_tokens": tokens, "tokens": tokens, **given}, "train"
    )
    found = estimated(config, model_cost(config, SIZE.seqlen), train, documents=False, gpu=False).total
    assert found == pytest.approx(peak_computed(config, train, SIZE), rel=0.1)


@pytest.mark.parametrize(
    "given",
    [
        {},
        pytest.param({"devices": 2, "strategy": "ddp"}, marks=pytest.mark.slow),
        pytest.param({"devices": 2, "strategy": "fsdp2"}, marks=pytest.mark.slow),
        pytest.param({"devices": 2, "tensor_parallel": 2}, marks=pytest.mark.slow),
    ],
)
def test_it_is_what_a_step_of_a_run_takes(given, prepared, data_settings):
    """Gradients are gone before the next forward pass, and processes have what the strategy says."""
    size = replace(SIZE, seqlen=32, vocab=4096)
    config, tokens = config_of(size, "hybrid"), 2 * size.seqlen * given.get("devices", 1)
    settings = {"context_length": size.seqlen, "batch_tokens": tokens, "tokens": STEPS * tokens, "log_every": STEPS}
    train = build(TrainConfig, {**settings, "accelerator": "cpu", "threads": 1, **given}, "train")
    data = build(DataConfig, {**data_settings, "documents": "joined"}, "data")
    found = estimated(config, model_cost(config, size.seqlen), train, documents=False, gpu=False).total
    assert found == pytest.approx(run_forked(train.devices, peak_of_process, prepared, data, config, train), rel=0.1)


def test_rows_with_documents_are_counted():
    """Not guessed: what a row keeps is about the same with them."""
    config = config_of(SIZE, "hybrid")
    alone, documents = (kept_by_blocks(config, 64, torch.float32, given, "torch") for given in (False, True))
    assert alone.blocks <= documents.blocks <= 1.1 * alone.blocks


@pytest.mark.parametrize("path", ["torch", "triton"])
def test_what_an_op_of_products_has_inside_is_counted_on_every_device(path):
    """A delta rule's scores and states within chunks are several times what the same width takes beside them."""
    working = {
        model: kept_by_blocks(config_of(replace(SIZE, layers=2), model), 256, torch.float32, False, path, 2).working
        for model in ("transformerpp", "rwkv7")
    }
    assert working["rwkv7"] > 2 * working["transformerpp"]


def test_ddp_has_everything_once_and_fsdp2_a_part_of_it():
    config = config_of(SIZE, "hybrid")
    cost = model_cost(config, SIZE.seqlen)
    base = {"context_length": SIZE.seqlen, "batch_tokens": 8 * SIZE.seqlen, "tokens": 8 * SIZE.seqlen}
    alone, ddp, fsdp2 = (
        estimated(config, cost, build(TrainConfig, {**base, **given}, "train"), documents=False, gpu=True)
        for given in ({"accumulate": 4}, {"devices": 4}, {"devices": 4, "strategy": "fsdp2"})
    )
    assert alone.held == 16 * cost.params
    assert ddp.held == 16 * cost.params
    assert ddp.total > fsdp2.total


@pytest.mark.parametrize("mixer", sorted(name for name in MIXERS.names if not name.startswith("fla:")))
def test_every_mixer_is_counted_with_documents_in_a_row_too(mixer):
    """Documents take little: a value for each token at most, and what attention masks."""
    config = replace(config_of(replace(SIZE, layers=1, attention=(), seqlen=256), "mamba2"), layout=f"{mixer} x 2")
    if mixer == "mamba3":
        config = replace(config, mixers={"mamba3": MIXERS.convert({"type": "mamba3", "definition": "softplus"}, "")})
    one, several = (
        kept.kept_by_blocks(config, 256, torch.float32, documents, "torch").blocks for documents in (False, True)
    )
    assert one <= several <= 1.2 * one


@pytest.mark.parametrize(("mixer", "documents"), [("mamba2", False), ("rg_lru", True)])
def test_counting_leaves_no_tensor_behind(mixer, documents):
    """Nodes of autograd that keep their own output (exp of Mamba2) would stay for good; so would those of a block
    that cannot be counted."""
    config = config_of(replace(SIZE, layers=1, attention=(), seqlen=32), "mamba2")
    config = replace(config, layout=mixer)

    def count() -> None:
        with suppress(KeptUnknown):
            kept._known.clear()
            kept.kept_by_blocks(config, 32, torch.float32, documents, "torch")

    def left() -> int:
        gc.collect()
        return sum(type(one) in (torch.UntypedStorage, kept.LiveBytes) for one in gc.get_objects())

    count()
    before = left()
    count()
    assert left() == before
