"""A variant's model in all processes that share contexts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lcprobe.data.prepare import Prepared, prepare
from lcprobe.errors import ConfigError, LcprobeError, PeerError
from lcprobe.models.config import KernelsConfig
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.engines.split.context import ContextSplit
from lcprobe.probing.engines.split.leading import Leading, with_peers
from lcprobe.probing.sharing.work import ProbedCheckpoint
from lcprobe.studies.evaluation.dividing.checks import KEY
from lcprobe.studies.evaluation.dividing.processes import KEPT, shared
from lcprobe.studies.evaluation.sources import Loaded
from lcprobe.studies.evaluation.variants import Variant, load_variant
from lcprobe.training.guards.peers import FailedElsewhere, Failure


@dataclass(frozen=True)
class Load:
    """What the first process tells the others to load."""

    variant: Variant
    probe: ProbeConfig
    kernels: KernelsConfig


def load_shared(
    variant: Variant, device: str, data: Prepared | None, probe: ProbeConfig
) -> tuple[Loaded, ProbedCheckpoint]:
    """As `load_variant`; with probe.context_parallel, in all processes, inside `sharing` and `with_others`. Raises
    PeerError where one of them is gone, and what any of them raises."""
    if probe.context_parallel == 1:
        return load_variant(variant, device, data, probe)
    ranks, orders = shared().ready()
    with shared().heart.during("telling the other processes what to load"):
        orders.send(Load(variant, probe, shared().kernels))
    found: list[tuple[Loaded, ProbedCheckpoint, ContextSplit]] = []

    def load() -> None:
        loaded, checkpoint = load_variant(variant, device, data, probe)
        found.append((loaded, checkpoint, divided(loaded, ranks, probe)))

    own = failure_of(load)
    with shared().heart.during("waiting until the processes that share contexts have loaded the model"):
        failures = orders.gathered(own)
    for failure in failures:
        if failure is not None:
            raise FailedElsewhere(failure)
    loaded, checkpoint, split = found[0]
    return replace(loaded, engine=Leading(split, orders), note=lambda: split.note), checkpoint


@contextmanager
def with_others(probe: ProbeConfig) -> Iterator[None]:
    """The block does something with other processes where contexts are shared: after an error they begin anew, and
    the error of a process that is gone says which, and why."""
    try:
        yield
    except Exception as error:
        if probe.context_parallel > 1:
            lost = shared().broken()
            if isinstance(error, PeerError):
                raise lost or PeerError(f"{error}; {KEPT}") from error
        raise


def load_to_follow(order: Load, device: str, ranks: ContextRanks) -> ContextSplit:
    """The same in another process."""
    target = order.variant.target
    calibrates = order.variant.extension is not None  # or may, on text
    data = prepare(target.config.data, trained_on=target.source.progress.corpus_digest) if calibrates else None
    return divided(load_variant(order.variant, device, data, order.probe)[0], ranks, order.probe)


def divided(loaded: Loaded, ranks: ContextRanks, probe: ProbeConfig) -> ContextSplit:
    """A model over the ranks. Raises ConfigError for one that cannot be divided."""
    module = loaded.module
    if module is None:
        raise ConfigError(KEY, probe.context_parallel, "1 for models of other engines")
    return ContextSplit(module, ranks)


def failure_of(work: Callable[[], None]) -> Failure | None:
    """Do something; what a user can act on where it fails."""
    try:
        with_peers(work)
    except LcprobeError as error:
        return Failure(str(error), error.exit_code)
    return None
