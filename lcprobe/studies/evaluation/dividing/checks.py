"""Which models' contexts cannot be divided, in one line, before anything is loaded."""

from collections.abc import Sequence

from lcprobe.errors import ConfigError
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.engines.split.context import check_divides
from lcprobe.studies.evaluation.variants import Variant

KEY, HANG_KEY = "probe.context_parallel", "probe.hang_minutes"


def check_shared(variants: Sequence[Variant], probe: ProbeConfig) -> None:
    """Raises ConfigError for models of other engines, for faults that are had on purpose, and for encodings and
    mixers that cannot be divided. What an extension changes is known when it is applied."""
    if probe.context_parallel == 1:
        return
    for variant in variants:
        reason, source = "", variant.target.source
        model = source.meta_model(variant.target.config)
        if model is None:
            reason = f"which {'a server' if source.served else 'the engine ' + source.engine} runs"
        elif variant.compat.active:
            reason = f"with compat.{variant.compat.active[0]}"
        else:
            try:
                check_divides(model)
            except ConfigError as error:
                reason = f"({error})"
        if reason:
            raise ConfigError(KEY, probe.context_parallel, f"1 for {variant.name}, {reason}")
