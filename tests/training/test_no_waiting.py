"""A training step never waits for the device: nothing in it asks a tensor for its value.

On a CPU the operations that ask for one are collected instead (`tests.waiting`): in the step; in the host code of the
Triton kernels that a GPU would run, here in Triton's interpreter; in the adapters of other packages, with stand-ins;
and in every mixer and encoding. On a GPU, PyTorch itself refuses to wait.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from lcprobe_kernels import attention, backends, ssd
from lcprobe_kernels.backends import using

from lcprobe.models import token_context
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import build
from lcprobe.tracking import NoTracker
from lcprobe.training import INITIAL_STATES
from lcprobe.training.checkpoint import Progress
from lcprobe.training.config import TrainConfig
from lcprobe.training.module import Training
from lcprobe.training.optim import make_optimizer
from lcprobe.training.strategies.division import Division
from tests.kernels import stand_in_flash_attn
from tests.models.contract_cases import CASES
from tests.waiting import Copied, collected, not_asking

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training(layout, mixers=None, **given):
    """A module, its optimiser, and a function that runs one step."""
    mixers = mixers or {
        "attention": {"head_dim": 16},
        "mamba2": {"head_dim": 16, "d_state": 16, "chunk_size": 16},
    }
    sizes = {"layout": layout, "d_model": 32, "d_ff": 32, "vocab_size": 64, "mixers": mixers}
    model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(0).to(DEVICE)
    config = build(
        TrainConfig, {"context_length": 16, "batch_tokens": 64, "tokens": 640, "accumulate": 2, **given}, "train"
    )
    module, optimizer = Training(config, model, 0, Progress(), NoTracker(), Division()), make_optimizer(config, model)
    module.optimizers = lambda: optimizer
    module.trainer = SimpleNamespace(optimizers=[optimizer])  # type: ignore[assignment]

    def step(number, documents=False, scale=1.0, batch=None):
        batch = batch or not_asking(batch_of)(number, documents)
        batch["own_parts"] = [(batch["tokens"], batch["starts"], batch["starts_on_host"])]

        def closure():
            optimizer.zero_grad()
            for part in range(config.accumulate):
                with torch.autocast(DEVICE.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    loss = module.training_step({**batch, "part": part}, part)
                (scale * loss / config.accumulate).backward()
            module.configure_gradient_clipping(optimizer)

        module.optimizer_step(0, 0, optimizer, closure)

    return module, optimizer, step


def batch_of(number, documents):
    """A micro-batch as it reaches the step, on the device, but what the host keeps."""
    generator = torch.Generator().manual_seed(number)
    tokens, starts = torch.randint(0, 64, (2, 16), generator=generator), torch.zeros(2, 16, dtype=torch.bool)
    starts[1, 7] = True
    packed, known = (starts.to(DEVICE), starts.numpy()) if documents else (None, None)
    moved = {
        "tokens": tokens, "weights": torch.ones(2, 16), "predicted": torch.arange(30), "earlier": tokens[:1],
        "before": tokens, "text_rows": torch.tensor([True, False]),
        "step_weight": torch.tensor(60.0, dtype=torch.float64),
    }  # fmt: skip
    return {name: value.to(DEVICE) for name, value in moved.items()} | {
        "step": number, "digests": ["00", "11"], "starts": packed, "starts_on_host": known,
        "before_starts": packed, "before_starts_on_host": known, "earlier_starts": None,
        "earlier_starts_on_host": None, "own_parts": None,
    }  # fmt: skip


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Two look at values on a CPU only; the third calls what a CPU has without its op."""
    monkeypatch.setattr(attention, "_finite", lambda *tensors: True)
    monkeypatch.setattr(ssd, "_check", lambda *arguments: None)
    monkeypatch.setattr(attention, "unrecorded", lambda like: False)


@pytest.mark.parametrize("documents", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_step_asks_no_tensor_for_its_value(documents, as_on_a_gpu):
    module, _, step = training("attention+mlp, mamba2", log_every=100, precision="bf16", accumulate=1)
    with using("triton"), collected() as asked:
        step(0, documents)
    assert asked == []
    with collected() as asked:
        assert module.settle().step == 1
    assert {name.split()[0] for name in asked} == {"tolist"}, "what is read is asked for"


@pytest.mark.parametrize("initial", INITIAL_STATES)
def test_states_before_a_step_ask_nothing(initial, as_on_a_gpu):
    more = {"share": 0.5} if initial != "preceding" else {}
    _, _, step = training("attention+mlp, mamba2", accumulate=1, initial_state={"type": initial, **more})
    with collected(inside=False) as asked:
        step(0, True)
    assert asked == []


@pytest.mark.parametrize("name", ["flash_attn", "flash_attn_4"])
def test_packed_documents_are_counted_on_the_host(name, as_on_a_gpu, monkeypatch):
    install = stand_in_flash_attn.install if name == "flash_attn" else stand_in_flash_attn.install_4
    calls = install(monkeypatch, (*stand_in_flash_attn.CHECKED, torch.float32))
    api = sys.modules["flash_attn.flash_attn_interface" if name == "flash_attn" else "flash_attn.cute.interface"]
    for function in [one for one in vars(api) if one.startswith("_flash_attn")]:
        setattr(api, function, not_asking(getattr(api, function)))
    monkeypatch.setattr(backends, "_chosen", name)
    monkeypatch.setattr(backends, "_decided_once", lambda op, *_: name if op == "attention" else "torch")
    _, _, step = training("attention+mlp x 2", accumulate=1)
    with collected(inside=False) as asked:
        step(0, True)
    assert asked == []
    assert len(calls) == 4
    assert all(options["cu_seqlens_k"].tolist() == [0, 16, 23, 32] for _, options in calls)
    assert all(options["max_seqlen_k"] == 16 for _, options in calls)


def one_of_each(registry):
    """The first case of each that is registered, which has its defaults; of encodings, with a learned sink."""
    first = {case.name: case for case in reversed(CASES) if case.registry is registry and case.name in registry}
    return [pytest.param(case, id=name) for name, case in sorted(first.items())]


@pytest.mark.parametrize("case", [*one_of_each(MIXERS), *one_of_each(POSITIONAL)])
def test_no_mixer_and_no_encoding_asks_a_tensor_for_its_value(case, as_on_a_gpu):
    """But FIRE, whose learned threshold decides which of its two forms a sequence takes."""
    model = case.build().float().to(DEVICE)
    batch = batch_of(0, True)
    tokens = batch["tokens"] % case.settings["vocab_size"]
    known = {"starts_on_host": torch.from_numpy(batch["starts_on_host"]), "predicted": batch["predicted"]}
    with collected(inside=False) as asked:
        model.loss(tokens, batch["weights"], starts=batch["starts"], **known)[0].backward()
    assert asked == [] or (case.name == "fire" and all("fire.py" in one for one in asked))


@pytest.mark.parametrize("case", [*one_of_each(MIXERS), *one_of_each(POSITIONAL)])
def test_no_mixer_and_no_encoding_copies_to_the_device(case, monkeypatch):
    """But by `sent`, from memory that stays in place. The meta device stands for a GPU."""
    monkeypatch.setattr(token_context, "sent", not_asking(token_context.sent))
    model, packed = case.build().float().to("meta"), batch_of(0, True)["starts"]
    copied = Copied()
    with copied:
        hidden, _ = model.hidden(torch.zeros(2, 16, dtype=torch.int64, device="meta"), starts=packed.to("meta"))
        hidden.sum().backward()
    assert copied.names == ["copy in the test"], "the documents of this test itself"


def test_a_step_that_is_left_out_changes_neither_weights_nor_moments_nor_their_count():
    module, optimizer, step = training("attention+mlp, mamba2", log_every=100)
    step(0)
    before = [(p.detach().clone(), *(v.clone() for v in optimizer.state[p].values())) for p in module.parameters()]
    step(1, scale=float("nan"))
    step(2, scale=float("inf"))
    for p, (weights, *moments) in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, weights)
        assert all(torch.equal(a, b) for a, b in zip(moments, optimizer.state[p].values(), strict=True))
    assert module.progress.skipped == 0, "not read yet"
    assert module.settle().skipped == 2
    step(3)
    assert module.settle().skipped == 2
    assert not torch.equal(next(module.parameters()), before[0][0])


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["attention+mlp, mamba2", "gated_deltanet", "gla", "rwkv6", "rwkv7", "rg_lru"])
def test_pytorch_refuses_no_part_of_a_step_on_a_gpu(layout):
    """After a first step, in which kernels are compiled."""
    widths = {"gated_deltanet": 32, "gla": 32, "rwkv6": 32, "rwkv7": 32}
    mixers = {layout: {"head_dim": widths[layout]}} if layout in widths else None
    _, _, step = training(layout, mixers or ({"rg_lru": {"n_blocks": 2}} if layout == "rg_lru" else None),
                          log_every=100, precision="bf16")  # fmt: skip
    step(0, True)
    batch = batch_of(1, True)  # whose copies wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(1, batch=batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
