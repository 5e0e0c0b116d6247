"""lm-eval tasks on our models: an adapter to lm-eval's TemplateLM, and tasks that are made once for all models.

lm-eval is an extra (`lcprobe[lmeval]`) and is imported inside functions only. Its numbers carry its version and are never
called RULER's: its RULER tasks differ from RULER in prompts, scoring and lengths. Prompts are never cut; lm-eval's own model
classes would drop the left end of a long one.
"""

import io
import json
import logging
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.errors import ConfigError, nearest_name
from lcprobe.probing.config import HarnessConfig
from lcprobe.probing.frozen import with_begin
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.tasks.text.tokenizer import Tokenizer

MAX_GEN_TOKS = 256
"""lm-eval's own default for tasks that name no number."""
SEED = 1234


@dataclass(frozen=True)
class HarnessScore:
    """One metric of one task. n: documents that have it. hits: their values where each is 0 .. 1, else None."""

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int
    hits: tuple[float, ...] | None


@dataclass(frozen=True)
class HarnessTasks:
    """lm-eval's tasks by the name that was asked for, and the manager that made them."""

    manager: Any
    by_name: dict[str, Any]


@dataclass(frozen=True)
class HarnessResult:
    """What lm-eval says of one asked name. samples: document, what was said, target and metrics, without the prompts."""

    scores: tuple[HarnessScore, ...]
    versions: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


def harness_label(task: str) -> str:
    """`lm-eval 0.4.13 niah_single_1`: how its numbers are called."""
    return f"lm-eval {version('lm_eval')} {task}"


def require_harness() -> None:
    """Raises ConfigError where lm-eval or what its RULER tasks import is not installed. Imports nothing."""
    missing = [name for name in ("lm_eval", "wonderwords", "nltk") if find_spec(name) is None]
    if missing:
        raise ConfigError("--harness", f"no package {', '.join(missing)}", "after: pip install 'lcprobe[lmeval]'")


def make_tasks(names: Sequence[str], config: HarnessConfig, tokenizer_json: str) -> HarnessTasks:
    """lm-eval's tasks by asked name (a task, group or tag), each made after the same seed, whatever else is asked.

    Raises ConfigError for an unknown name, and for a task whose data cannot be made or found here.
    """
    require_harness()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_hub(config.online))
        stack.enter_context(_held())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
        from lm_eval.tasks import TaskManager

        metadata: Any = {"max_seq_lengths": list(config.max_seq_lengths), "tokenizer": str(folder)}
        manager = TaskManager(metadata=metadata)
        for name in names:
            if name not in manager.all_tasks:
                allowed = f"a task, group or tag of lm-eval {version('lm_eval')} ({len(manager.all_tasks):,} names)"
                raise ConfigError("--harness", name, allowed, nearest_name(name, manager.all_tasks))
        return HarnessTasks(manager, {name: _made(manager, name, config.online) for name in names})


def run_task(tasks: HarnessTasks, name: str, model: Any, config: HarnessConfig) -> HarnessResult:
    """lm-eval's evaluation of one asked name with a model of `harness_model`.

    Raises ConfigError for a task that samples instead of decoding greedily.
    """
    from lm_eval.evaluator import simple_evaluate

    evaluate: Any = simple_evaluate  # its result is typed as if every key could be missing
    loaded = tasks.by_name[name]
    for task in loaded["tasks"].values():
        if task.get_config("output_type") == "generate_until" and (task.get_config("generation_kwargs") or {}).get(
            "do_sample"
        ):
            raise ConfigError("--harness", f"{task.task_name}, which samples", "tasks that decode greedily")
    with _quiet(), _hub(config.online):
        made = evaluate(
            model=model,
            tasks=list((loaded["groups"] or loaded["tasks"]).values()),
            task_manager=tasks.manager,  # another one would read thousands of files once more
            limit=config.limit,
            bootstrap_iters=1000,  # for metrics that are no mean; a mean's error has a formula
            random_seed=SEED,
        )
    assert made is not None, "lm-eval returns nothing to all but the first process"
    found = made["samples"]
    scores = [score for task, row in made["results"].items() for score in _scores(task, row, found.get(task, []))]
    kept = ("doc_id", "target", "filter", "filtered_resps", "doc_hash", "prompt_hash")
    samples = {
        task: [{k: row[k] for k in kept} | {m: row[m] for m in row["metrics"]} for row in rows]
        for task, rows in found.items()
    }
    return HarnessResult(tuple(scores), dict(made["versions"]), samples)


def harness_model(continuer: Continuer, tokenizer: Tokenizer) -> Any:
    """A TemplateLM over a Continuer, for `run_task` or lm-eval's own `simple_evaluate(model=...)`."""
    from lm_eval.api.model import TemplateLM

    class LcprobeLM(TemplateLM):
        @property
        def eot_token_id(self) -> int:
            if tokenizer.bos_id is None:  # documents are parted by the begin token, so it is the end token, too
                raise ConfigError("data.bos", None, "a tokenizer with a begin token, for tasks with empty contexts")
            return tokenizer.bos_id

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            return tokenizer.encode(string).tolist() if add_special_tokens is False else with_begin(tokenizer, string)

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            made = continuer.likelihoods([(context, continuation) for _, context, continuation in requests])
            return [(float(likelihood.sum()), bool(right.all())) for likelihood, right in made]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
            made = continuer.likelihoods([([self.eot_token_id], ids) for ids in texts])
            return [float(likelihood.sum()) for likelihood, _ in made]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            prompts = [self.tok_encode(request.args[0]) for request in requests]
            settings = [request.args[1] for request in requests]
            stops = [_stops(given.get("until")) for given in settings]
            steps = [int(given.get("max_gen_toks", MAX_GEN_TOKS)) for given in settings]

            def text_of(ids: list[int]) -> str:
                return tokenizer.decode(np.array([i for i in ids if i != tokenizer.bos_id], dtype=np.int64))

            def done(row: int, ids: list[int]) -> bool:
                return ids[-1] == tokenizer.bos_id or (
                    bool(stops[row]) and _cut(text_of(ids), stops[row]) is not None
                )

            said = continuer.greedy(prompts, steps, done)
            texts = [text_of(ids) for ids in said]
            return [
                text if (cut := _cut(text, stop)) is None else cut for text, stop in zip(texts, stops, strict=True)
            ]

    return LcprobeLM()


def _made(manager: Any, name: str, online: bool) -> Any:
    random.seed(SEED)  # lm-eval's generators draw from the global streams
    np.random.seed(SEED)
    try:
        return manager.load([name])
    except Exception as error:  # whatever a task, datasets or the hub raise
        why = " ".join(str(error).split())[:160] or type(error).__name__
        allowed = "a task whose data can be made here" + (
            "" if online else ", or probe.harness.online=true with a connection"
        )
        raise ConfigError("--harness", name, f"{allowed} ({type(error).__name__}: {why})") from None


def _scores(task: str, row: dict[str, Any], samples: list[dict[str, Any]]) -> Iterator[HarnessScore]:
    for key, value in row.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        if metric.isdigit() and value == -1:  # a length that was not asked for
            continue
        stderr = row.get(f"{metric}_stderr,{kind}")
        values = [s[metric] for s in samples if s["filter"] == kind and metric in s]
        values = [float(v) for v in values if isinstance(v, int | float) and not (metric.isdigit() and v == -1)]
        shares = bool(values) and all(0 <= v <= 1 for v in values) and abs(sum(values) / len(values) - value) < 1e-9
        label = metric if kind == "none" else f"{metric} ({kind})"
        n = len(values) or int(row.get("sample_len", row.get("sample_count", 0)) or 0)
        known = float(stderr) if isinstance(stderr, int | float) else None
        yield HarnessScore(task, label, float(value), known, n, tuple(values) if shares else None)


def _stops(until: Any) -> list[str]:
    return [s for s in ([until] if isinstance(until, str) else until or []) if s]


def _cut(text: str, stops: list[str]) -> str | None:
    """The text before the first stop, or None where there is none."""
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(found)] if found else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress of lm-eval's generators goes to stderr, its warnings about missing aggregations nowhere."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _held() -> Iterator[None]:
    """What is printed waits: it goes to stderr in the end, or nowhere where a ConfigError says in one line what went wrong.

    Of a progress bar its last state is left.
    """
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            yield
    except ConfigError:
        said = io.StringIO()
        raise
    finally:
        for line in filter(None, said.getvalue().split("\n")):
            print(line.rpartition("\r")[2], file=sys.stderr)


@contextmanager
def _hub(online: bool) -> Iterator[None]:
    """Unless online: the hub's libraries answer from their caches or fail at once, instead of retrying for half a minute, and
    nltk fetches nothing.
    """
    import datasets.config
    import huggingface_hub.constants
    import nltk

    places: list[tuple[Any, str, Any]] = [(huggingface_hub.constants, "HF_HUB_OFFLINE", True)]
    places += [(datasets.config, "HF_HUB_OFFLINE", True), (nltk, "download", lambda *_, **__: False)]
    before = [getattr(module, name) for module, name, _ in places]
    try:
        for module, name, value in [] if online else places:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)
