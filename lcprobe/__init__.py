"""lcprobe: train matched sequence models at a fixed context length, then probe what they retrieve from context.

In Python: `lcprobe.load_study`, `load_run` and `load_checkpoint` open what `train.py` and `evaluate.py` wrote;
`lcprobe.probe` runs a task on a model. Importing the package imports nothing heavy: each name is imported on first
use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lcprobe.version import VERSION as __version__

if TYPE_CHECKING:
    from lcprobe.api.models import Model, load_checkpoint
    from lcprobe.api.probes import ProbeResult, probe
    from lcprobe.api.studies import Study, TrainedRun, load_run, load_study
    from lcprobe.errors import LcprobeError
    from lcprobe.studies.status import versions

__all__ = [
    "LcprobeError",
    "Model",
    "ProbeResult",
    "Study",
    "TrainedRun",
    "__version__",
    "load_checkpoint",
    "load_run",
    "load_study",
    "probe",
    "versions",
]
EXPORTS = {
    "LcprobeError": "lcprobe.errors",
    "Model": "lcprobe.api.models",
    "ProbeResult": "lcprobe.api.probes",
    "TrainedRun": "lcprobe.api.studies",
    "Study": "lcprobe.api.studies",
    "load_checkpoint": "lcprobe.api.models",
    "load_run": "lcprobe.api.studies",
    "load_study": "lcprobe.api.studies",
    "probe": "lcprobe.api.probes",
    "versions": "lcprobe.studies.status",
}
"""Public names by the module that defines them."""


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module 'lcprobe' has no attribute {name!r}")
    return getattr(import_module(EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *EXPORTS})
