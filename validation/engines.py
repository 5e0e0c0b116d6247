"""Engines on the same weights: log-probabilities, scores, and tokens read for one haystack, its needle at 20 depths.

Checkpoints are tiny random models that transformers' own code wrote. What every engine is compared with is the class
of transformers itself, by one full forward pass for every candidate and every decoded token, without a cache. Servers
are stand-ins that answer from the class, over HTTP. "cache kept": the engine as it would be without its test at
loading.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcprobe.errors import ConfigError
from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.probing.config import ServerConfig
from lcprobe.probing.continuation_scoring import ContinuationScorer
from lcprobe.probing.engines.contract import Continuations, Ids, ProbedModel
from lcprobe.probing.engines.parity import check_parity, measure_parity
from lcprobe.probing.engines.servers import server
from lcprobe.probing.engines.transformers import TransformersModel
from lcprobe.probing.engines.transformers_folder import transformers_model
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.scoring import Item, ModelScorer, Score
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.niah import NIAH, NIAHConfig
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.invariances.peer_models import tiny
from validation.servers import Faults, StandIn, stand_in

TITLE = "engines: the same weights through each, one haystack with its needle at 20 depths"
OPTIONS = ("length",)
GROUP = ("checkpoint",)
OURS, CAUGHT = ("llama", "mamba2"), ("jamba", "mamba", "recurrent_gemma")
"""Checkpoints of classes that are right, which our mixers read too, and of classes that the test at loading finds."""
DEPTHS, NEEDLES, LIMIT, NOISE = 20, 4, 0.05, 0.2
CHUNK, BATCH = 128, 65_536


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per checkpoint and engine. options: length (400 tokens)."""
    tokenizer = load_tokenizer("shipped-1024")
    items = _items(tokenizer, int(options.get("length", 400)))
    logging.getLogger("lcprobe.probing.engines.self_test").setLevel(logging.WARNING)
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for name in (*OURS, *CAUGHT):
            folder = Path(root) / name
            model: Any = tiny(name, tokenizer.vocab_size)
            model.save_pretrained(folder)
            rows += list(_rows(folder, tokenizer, items))
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the columns are."""
    return [
        "max |dlogprob|: of a token of any candidate, in nats, from a full forward pass of transformers' class",
        "same scores: exact, first token, token accuracy and rank, sample by sample; same texts: what is printed. A "
        "server of OpenAI's API names tokens by their text: where a random model prints parts of characters, it is "
        "not known which",
        "tokens read: prompts, candidates and decoded tokens, each time that they pass through the model; prompts: "
        f"of the {DEPTHS} prompts together. A server is sent the prompt with each of {NEEDLES} candidates, and keeps "
        "what it likes",
        f"gate: the same samples on both sides, refused above {LIMIT:g} nats; `off by {NOISE:g}`: a server whose "
        "log-probabilities are",
    ]


def _items(tokenizer: Tokenizer, length: int) -> list[Item]:
    """One sample at 20 depths."""
    settings = {"template": "line", "digits": 2, "n_keys": NEEDLES}
    task = NIAH(build(NIAHConfig, settings, "task"), Materials(tokenizer))
    formats = Formats("words", "words", "numbers")
    episodes = [task.episode(Factors(formats, length, (i + 0.5) / DEPTHS, 0)) for i in range(DEPTHS)]
    return [Item(episode, query) for episode in episodes for query in episode.queries]


def _rows(folder: Path, tokenizer: Tokenizer, items: list[Item]) -> Iterator[dict[str, Any]]:
    engine = transformers_model(folder, torch.float32, "cpu")
    plain = PlainForward(engine.model)
    pairs = [(item.prompt, choice) for item in items for choice in item.query.candidates]
    want = plain.likelihoods(pairs), ContinuationScorer(plain, tokenizer).score(items)

    def row(name: str, asked: Continuations, score: Scores, tokens: Callable[[], int], gate: str = "") -> Any:
        found = asked.likelihoods(pairs)
        off = max(float(np.abs(a - b).max()) for (a, _), (b, _) in zip(found, want[0], strict=True))
        before = tokens()
        scores = score(items)
        both = list(zip(scores, want[1], strict=True))
        same, printed = sum(_bare(a) == _bare(b) for a, b in both), sum(a.prediction == b.prediction for a, b in both)
        return {
            "checkpoint": folder.name,
            "engine": name,
            "max |dlogprob|": f"{off:.1e}",
            "same scores": f"{same} of {len(items)}",
            "same texts": f"{printed} of {len(items)}",
            "prompts": sum(len(item.prompt) for item in items),
            "tokens read": tokens() - before,
            "gate": gate,
            "note": engine.note if name == "transformers" else "",
        }

    def here(name: str, model: ProbedModel, tokens: Callable[[], int]) -> dict[str, Any]:
        scorer = ModelScorer(model, tokenizer, "cpu", CHUNK, batch_tokens=BATCH)
        return row(name, Continuer(model, "cpu", CHUNK, BATCH), scorer.score, tokens)

    if folder.name in OURS:
        native = Counted(load_published(recognised(folder)))
        yield here("native", native, lambda: native.tokens)
    yield here("transformers", engine, lambda: engine.tokens_read)
    if folder.name in CAUGHT:
        yield from _as_it_was(engine, lambda: here("transformers, cache kept", engine, lambda: engine.tokens_read))
        return
    reference = Continuer(native, "cpu", CHUNK, BATCH)
    for kind in ("vllm", "openai"):
        with ExitStack() as stack:
            running = stack.enter_context(stand_in(engine, tokenizer, kind))
            asked = server(kind, running.address, tokenizer, ServerConfig())
            gate = f"passes: {measure_parity(asked, reference, pairs, LIMIT)}"
            score = ContinuationScorer(asked, tokenizer).score
            yield row(f"{kind} server", asked, score, _sent(running), gate)
            running.faults = Faults(noise=NOISE)
            try:
                check_parity(kind, asked, reference, pairs, LIMIT)
                gate = "passes"
            except ConfigError as error:
                gate = f"refused: {error.given}"
            yield row(f"{kind} server off by {NOISE:g}", asked, score, _sent(running), gate)


Scores = Callable[[list[Item]], list[Score]]


def _sent(running: StandIn) -> Callable[[], int]:
    return lambda: running.tokens


def _as_it_was(engine: TransformersModel, row: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The row of an engine that keeps its class's cache after all, where the class can be read so."""
    engine.keep_cache()
    try:
        yield row()
    except Exception as error:  # NoCache, and whatever a class raises
        print(f"{engine.note}: with its cache kept it cannot be read: {error}")
    finally:
        engine.reread()


def _bare(score: Score) -> Score:
    """What is decided by log-probabilities alone, and does not differ in the last digits."""
    return replace(score, log_likelihood=0.0, read_tokens=None, prediction="", distractor_hit=False)


class PlainForward(Continuations):
    """A class of transformers by full forward passes alone: one for every pair, and one for every decoded token."""

    def __init__(self, model: Any):
        self.model = model

    @torch.inference_mode()
    def _logits(self, ids: Sequence[int]) -> Tensor:
        return self.model(torch.tensor([ids]), use_cache=False).logits[0].float()

    def likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """See Continuations."""
        found = []
        for context, continuation in pairs:
            logs = self._logits([*context, *continuation])[len(context) - 1 : -1].log_softmax(-1)
            ids = torch.tensor([int(i) for i in continuation])
            found.append((logs.gather(-1, ids[:, None])[:, 0].numpy(), (logs.argmax(-1) == ids).numpy()))
        return found

    def greedy(
        self, prompts: Sequence[Ids], steps: Sequence[int], done: Callable[[int, list[int]], bool]
    ) -> list[list[int]]:
        """See Continuations; `done` is not asked."""
        found: list[list[int]] = [[] for _ in prompts]
        for new, prompt, n in zip(found, prompts, steps, strict=True):
            for _ in range(n):
                new.append(int(self._logits([*prompt, *new])[-1].argmax()))
        return found


class Counted(ProbedModel):
    """A model that counts the tokens that pass through it."""

    def __init__(self, model: ProbedModel):
        self.model, self.tokens = model, 0

    def new_state(self, batch: int, length: int | None = None) -> Any:
        """The model's own."""
        return self.model.new_state(batch, length)

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's own."""
        return self.model.logits(hidden)

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """The model's own."""
        self.tokens += tokens.numel()
        return self.model.hidden(tokens, state=state)
