"""One process: the peak of a step that is computed, and of one on tensors without values."""

from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from lcprobe_kernels import attention, ssd
from lcprobe_kernels.backends import assuming
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.studies.planning.memory.estimate import LOGIT_BYTES
from lcprobe.studies.planning.memory.kept import IN_PRODUCTS, LiveBytes
from lcprobe.training.config import TrainConfig
from lcprobe.training.optim import make_optimizer
from validation.training_memory.sizes import Size


class Step(LiveBytes):
    """Counts also what our own ops have inside, where they are computed, or are PyTorch's products on a GPU too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if not name.startswith("lcprobe::"):
            return super().__torch_dispatch__(func, types, args, kwargs)
        if name[: -len("_fwd")] not in IN_PRODUCTS and any(isinstance(arg, FakeTensor) for arg in args):
            if name == "lcprobe::linear_cross_entropy_fwd":
                hidden, weight = args[:2]
                chunk = min(hidden.shape[0] * weight.shape[0] * hidden.element_size(), LOGIT_BYTES)
                copies = hidden.nbytes + (
                    weight.numel() * hidden.element_size() if hidden.dtype != weight.dtype else 0
                )
                outputs = hidden.nbytes + weight.nbytes
                self.peak = max(self.peak, self.now + chunk + copies + outputs)
            return super().__torch_dispatch__(func, types, args, kwargs)
        with self:
            out = OPDEFS[name]._init_fn(*args, **(kwargs or {}))
        return out


def peak_computed(config: ModelConfig, train: TrainConfig, size: Size, device: str = "cpu") -> float:
    """Of a step that is computed, after one that makes the moments."""
    model = LanguageModel(config).initialise(0).to(device)
    model.recompute, optimizer = train.recompute, make_optimizer(train, model)
    tokens = torch.randint(0, size.vocab, (size.rows, size.seqlen)).to(device)
    _run(model, train, tokens, device)
    optimizer.step()
    optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        _run(model, train, tokens, device)
        optimizer.step()
        return float(torch.cuda.max_memory_allocated())
    with Step() as step:
        step.add([*model.parameters(), *(list(state.values()) for state in optimizer.state.values())])
        _run(model, train, tokens, device)
        optimizer.step()
    return float(step.peak)


def peak_without_values(config: ModelConfig, train: TrainConfig, size: Size) -> float:
    """Of a step without the optimiser's own, on a CPU's tensors without values that take the paths of a GPU."""
    finite, check = attention._finite, ssd._check
    attention._finite, ssd._check = lambda *tensors: True, lambda *arguments: None  # both ask on a CPU only
    try:
        with ExitStack() as stack:
            stack.enter_context(assuming("triton"))
            with torch.device("meta"):
                model = LanguageModel(config)
            mode = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            model.to_empty(device="cpu")
            model.recompute = train.recompute
            tokens = torch.zeros(size.rows, size.seqlen, dtype=torch.int64)
            moments = [torch.empty_like(p) for p in model.parameters() for _ in range(2)]
            step = stack.enter_context(Step())
            step.add([*model.parameters(), *moments])
            _run(model, train, tokens, "cpu")
            del mode
            return float(step.peak)
    finally:
        attention._finite, ssd._check = finite, check


def _run(model: LanguageModel, train: TrainConfig, tokens: Tensor, device: str) -> None:
    """Forward and backward of all parts of a step."""
    rows, seqlen = tokens.shape
    narrow = train.precision == "bf16"
    for _ in range(train.accumulate):
        weights = torch.ones(rows, seqlen, device=device)
        predicted = torch.arange(rows * (seqlen - 1), device=device)
        with torch.autocast(device, torch.bfloat16) if narrow else nullcontext():
            loss = model.loss(tokens, weights, predicted=predicted)[0]
        (loss / train.accumulate).backward()
