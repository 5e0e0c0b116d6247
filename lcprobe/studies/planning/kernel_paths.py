"""Which backend each op of a study's models takes in training and in reading a prompt, and why not another.

Each model runs on the meta device, without numbers, and its calls are recorded: what a layer needs is not declared
anywhere else that could differ from what it does. Autocast has no meta device, so the dtype is that of the setting.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from lcprobe_kernels import ArgumentError, backends
from lcprobe_kernels.abilities import FEATURES
from lcprobe_kernels.choosing import Request
from lcprobe_kernels.report import decision

from lcprobe.config import Config
from lcprobe.errors import ConfigError, Said
from lcprobe.models.language_model import LanguageModel
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.training.build import build_model, repeated_gradients

TRAINING, READING = "training", "reading a prompt"
HEAD = "head"
LONGEST = 4096
"""Tokens of the recorded passes at most: what an op needs depends on them only where a window is wider."""


@dataclass(frozen=True)
class Called:
    """A call of an op. layer: the block's index, or HEAD for what follows the blocks."""

    phase: str
    layer: int | str
    request: Request


def calls_of(config: Config) -> tuple[list[Called], list[str]]:
    """The calls of a run's model, each kind of call once a layer; and what is not known, of layers that look at
    numbers, which the meta device does not have. Raises ConfigError for a model that cannot be built."""
    length = min(config.train.context_length, LONGEST)
    with torch.device("meta"):
        model = build_model(config.model, config.train)
        tokens = torch.zeros(1, length, dtype=torch.int64)
        starts = torch.zeros(1, length, dtype=torch.bool)
        with repeated_gradients(config.train):
            calls, gaps = _recorded(model, TRAINING, lambda: model.hidden(tokens, starts=starts))
        half = length // 2
        declared = length if model.needs_length else None

        def read() -> None:
            _, state = model.hidden(tokens[:, :half], state=model.new_state(1, declared))
            model.hidden(tokens[:, half:], state=state)

        with torch.no_grad():
            reading, more = _recorded(model, READING, read)
    head = Request("linear_cross_entropy", "meta", torch.float32, frozenset())
    return list(dict.fromkeys([*calls, *reading, Called(TRAINING, HEAD, head)])), [*gaps, *more]


def path_lines(
    plan: StudyPlan, device: str, capability: tuple[int, int] | None, dtype: torch.dtype | None = None
) -> list[str]:
    """One line for each op and each way in which it is called: the backend, the models and their layers, and why not
    those that auto tries before it; then one for each backend that an op takes: why. device: cuda or cpu; dtype:
    None: the one of train.precision."""
    found: dict[tuple[str, str, str], dict[str, dict[str, None]]] = {}
    why: dict[str, None] = {}
    unknown: list[str] = []
    for run in _one_of_each(plan):
        calls, gaps = calls_of(run.config)
        unknown += [f"{gap} of {run.group}" for gap in gaps]
        for called in _on(calls, device, capability, dtype or dtype_of(run.config)):
            path, against, reason = decision(called.request, run.config.kernels.backend, device == "cuda")
            if reason:
                why[f"{called.request.op} by {path}: {reason}"] = None
            needs = [words for name, words in FEATURES[called.request.op].items() if name in called.request.needs]
            kind = f"{called.phase}, {called.request.op}" + (f" with {', '.join(needs)}" if needs else "")
            layers = found.setdefault((kind, path, against), {}).setdefault(run.group, {})
            layers[str(called.layer)] = None
    lines = [
        f"{kind}: {path} in {'; '.join(f'{model} ({_in_words(list(layers))})' for model, layers in models.items())}"
        + (f"; not {against}" if against else "")
        for (kind, path, against), models in found.items()
    ]
    return [*lines, *sorted(why), *unknown]


def check_backend_fits(plan: StudyPlan, device: str, capability: tuple[int, int] | None) -> None:
    """Raises ConfigError where kernels.backend names a backend that has an op of a model and cannot serve a call of
    it."""
    for run in _one_of_each(plan):
        chosen = run.config.kernels.backend
        if chosen in ("auto", "torch"):
            continue
        for called in _on(calls_of(run.config)[0], device, capability, dtype_of(run.config)):
            try:
                backends.choice_for(called.request, chosen, device == "cuda")
            except ArgumentError as error:
                given, allowed = str(error).removeprefix("kernels.backend: given ").split("; allowed: ")
                at = f" (model {run.group}, layer {called.layer}, {called.phase})"
                raise ConfigError("kernels.backend", Said(given + at), allowed) from None


def dtype_of(config: Config) -> torch.dtype:
    """The dtype of what mixers compute with in training."""
    return torch.bfloat16 if config.train.precision == "bf16" else torch.float32


def _one_of_each(plan: StudyPlan) -> list[PlannedRun]:
    return list({run.group: run for run in plan.runs}.values())


def _recorded(model: LanguageModel, phase: str, run: Callable[[], object]) -> tuple[list[Called], list[str]]:
    """The calls that `run` makes of a model, with their layers, and where it could not go on."""
    gaps: list[str] = []
    begins: list[tuple[int, int | str]] = [(0, HEAD)]  # the number of the first call, and where it is
    with backends.recording() as requests:

        def begin(at: int | str) -> None:
            begins.append((len(requests), at))

        blocks = list(model.blocks)
        hooks = [b.register_forward_pre_hook(lambda *_, i=i: begin(i)) for i, b in enumerate(blocks)]
        hooks += [b.register_forward_hook(lambda *_: begin(HEAD)) for b in blocks]
        try:
            run()
        except (RuntimeError, NotImplementedError) as error:  # of PyTorch, where an operation needs numbers
            why = str(error).splitlines()[0].split(", but")[0]
            gaps.append(f"{phase}: not known from {_in_words([str(begins[-1][1])])} on ({why})")
        finally:
            for hook in hooks:
                hook.remove()
    firsts = [first for first, _ in begins]
    places = [begins[bisect_right(firsts, k) - 1][1] for k in range(len(requests))]
    return [Called(phase, at, request) for at, request in zip(places, requests, strict=True)], gaps


def _on(
    calls: Sequence[Called], device: str, capability: tuple[int, int] | None, dtype: torch.dtype
) -> Iterator[Called]:
    for called in calls:
        request = replace(called.request, device=device, capability=capability, dtype=dtype)
        yield replace(called, request=request)


def _in_words(layers: list[str]) -> str:
    """`layers 0-3, 5, head`."""
    numbers, rest = sorted(int(n) for n in layers if n != HEAD), [n for n in layers if n == HEAD]
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    spans = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return ", ".join([*([f"layer{'s' if len(numbers) > 1 else ''} {', '.join(spans)}"] if spans else []), *rest])
