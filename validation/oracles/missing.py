"""What is registered and has no oracle yet, and what to write for it."""

from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from validation.oracles.encodings import FORMULAS
from validation.oracles.equations import ATTENTION_METHODS, SCANS
from validation.oracles.mixers import KINDS

WHOLE_MODELS = {"attention": "transformers llama", "mamba2": "transformers mamba2"}
"""Mixers without a recurrence among `mixers.KINDS`, and the comparison with an outside model that has them."""
WITHOUT = {"chunk_select"}
"""Extensions that leave the model as trained: prompts are split."""


def missing() -> dict[str, str]:
    """By name of an encoding, extension or mixer without oracle: what to write, and where."""
    encoding = (
        "its equation in validation/oracles/encodings.py: `def {0}(g: EquationInputs) -> Tensor`, a line in FORMULAS"
    )
    method = (
        "its definition in validation/oracles/extensions.py (attention_under, or recurrence for a scan), a line in "
    )
    method += "ATTENTION_METHODS or SCANS of equations.py"
    mixer = (
        "its step in validation/oracles/recurrences.py with a line in KINDS of mixers.py, or a comparison with an "
    )
    mixer += "outside model in COMPARISONS, named in WHOLE_MODELS of missing.py"
    extensions = {kind["type"] for kind in ATTENTION_METHODS + SCANS} | WITHOUT
    mixers = {kind["type"] for kind in KINDS} | set(WHOLE_MODELS)
    wanted = {name: encoding.format(name) for name in sorted(POSITIONAL) if name not in FORMULAS}
    wanted |= {name: method for name in sorted(EXTENSIONS) if name not in extensions}
    return wanted | {name: mixer for name in sorted(MIXERS) if name not in mixers}
