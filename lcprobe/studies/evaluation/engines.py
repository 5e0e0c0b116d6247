"""What answers the questions of a session: a loaded model, or a server behind its parity gate."""

import torch

from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.continuation_scoring import ContinuationScorer
from lcprobe.probing.engines.contract import Continuations
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.engines.parity import check_parity
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.continuation import Continuer, Watch, unwatched
from lcprobe.probing.runner import parity_pairs
from lcprobe.probing.scoring import ModelScorer, Scorer
from lcprobe.probing.units import Plan
from lcprobe.studies.console import say
from lcprobe.studies.evaluation.sources import Loaded
from lcprobe.tasks.text.tokenizer import Tokenizer


def device() -> str:
    """The device on which models are probed."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def scorer_of(loaded: Loaded, tokenizer: Tokenizer, probe: ProbeConfig) -> Scorer:
    """What scores questions as `probe.scoring` says."""
    generate = probe.scoring == "generate"
    if loaded.engine is None:
        return ContinuationScorer(loaded.server, tokenizer, generate)
    model = in_precision(loaded.engine, probe.precision)
    return ModelScorer(model, tokenizer, device(), probe.chunk, generate, probe.batch_tokens)


def continuations_of(loaded: Loaded, probe: ProbeConfig, watch: Watch = unwatched) -> Continuations:
    """What continues prompts from elsewhere. watch: follows each call of a model that is loaded here."""
    if loaded.engine is None:
        return loaded.server
    return Continuer(in_precision(loaded.engine, probe.precision), device(), probe.chunk, probe.batch_tokens, watch)


def pass_parity_gate(name: str, loaded: Loaded, plan: Plan, tasks: TaskSet, probe: ProbeConfig) -> str:
    """Compare a server with its reference on the first samples of the grid, print the difference, and return it as a
    note for the report; empty for a model that is loaded here. Raises ConfigError above the limit."""
    if loaded.engine is not None:
        return ""
    if loaded.reference is None:
        note = "compared with no reference (probe.server.reference): its log-probabilities are taken as they are"
    else:
        pairs = parity_pairs(plan, tasks, probe.server.samples)
        reference = continuations_of(loaded.reference(), probe)
        note = f"parity with {probe.server.reference}: "
        note += str(check_parity(name, loaded.server, reference, pairs, probe.server.limit))
    say(f"{name}: {note}")
    return note
