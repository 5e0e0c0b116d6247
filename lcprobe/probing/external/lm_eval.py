"""lm-eval tasks on our models: an adapter to lm-eval's TemplateLM, and tasks that are built once for all models.

lm-eval is an extra (`lcprobe[lmeval]`) and is imported inside functions only. Its numbers are labelled with its
version and never as RULER's: its RULER tasks differ from RULER in prompts, scoring and lengths. Prompts are never
truncated; lm-eval's own model classes would drop the left end of a long one.
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
from lcprobe.probing.engines.contract import Continuations
from lcprobe.probing.frozen import with_begin
from lcprobe.tasks.text.tokenizer import Tokenizer

MAX_GEN_TOKS = 256
"""lm-eval's own default for tasks without a number."""
SEED = 1234
USUAL_SEED = 0
"""lm-eval's own default for `random`, from which its RULER tasks are drawn."""


@dataclass(frozen=True)
class HarnessScore:
    """One metric of one task. n: documents that have it. hits: their values if each is in 0 .. 1, else None."""

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int
    hits: tuple[float, ...] | None


@dataclass(frozen=True)
class HarnessTasks:
    """lm-eval's tasks by requested name, and the manager that built them."""

    manager: Any
    by_name: dict[str, Any]


@dataclass(frozen=True)
class HarnessResult:
    """lm-eval's result for one requested name. samples: document, output, target and metrics, without the prompts."""

    scores: tuple[HarnessScore, ...]
    versions: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]


def harness_label(task: str) -> str:
    """`lm-eval 0.4.13 niah_single_1`: the label of its numbers."""
    return f"lm-eval {version('lm_eval')} {task}"


def require_harness() -> None:
    """Raises ConfigError where lm-eval or a dependency of its RULER tasks is not installed. Imports nothing."""
    missing = [name for name in ("lm_eval", "wonderwords", "nltk") if find_spec(name) is None]
    if missing:
        raise ConfigError("--harness", f"no package {', '.join(missing)}", "after: pip install 'lcprobe[lmeval]'")


def make_tasks(names: Sequence[str], config: HarnessConfig, tokenizer_json: str, seed: int = SEED) -> HarnessTasks:
    """lm-eval's tasks by requested name (a task, group or tag), each built from the same seed, whatever else is
    requested. seed: of `random`; USUAL_SEED makes the samples of `lm_eval --tasks NAME` alone.

    Raises ConfigError for an unknown name, and for a task whose data can neither be generated nor found here.
    """
    require_harness()
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_hub(config.online))
        stack.enter_context(_buffered_output())
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
        return HarnessTasks(manager, {name: _load(manager, name, config.online, seed) for name in names})


def run_task(tasks: HarnessTasks, name: str, model: Any, config: HarnessConfig) -> HarnessResult:
    """lm-eval's evaluation of one requested name with a model of `harness_model`.

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
        result = evaluate(
            model=model,
            tasks=list((loaded["groups"] or loaded["tasks"]).values()),
            task_manager=tasks.manager,  # another one would read thousands of files again
            limit=config.limit,
            bootstrap_iters=1000,  # for metrics other than means; a mean's error has a formula
            random_seed=SEED,
        )
    assert result is not None, "lm-eval returns a result in the first process only"
    rows_of = result["samples"]
    scores = [score for task, row in result["results"].items() for score in _scores(task, row, rows_of.get(task, []))]
    kept = ("doc_id", "target", "filter", "filtered_resps", "doc_hash", "prompt_hash")
    samples = {
        task: [{k: row[k] for k in kept} | {m: row[m] for m in row["metrics"]} for row in rows]
        for task, rows in rows_of.items()
    }
    return HarnessResult(tuple(scores), dict(result["versions"]), samples)


def harness_model(continuer: Continuations, tokenizer: Tokenizer) -> Any:
    """A TemplateLM over a `Continuer` or a server, for `run_task` or lm-eval's own `simple_evaluate(model=...)`."""
    from lm_eval.api.model import TemplateLM

    class LcprobeLM(TemplateLM):
        @property
        def eot_token_id(self) -> int:
            if tokenizer.bos_id is None:  # the begin token separates documents, so it also ends them
                raise ConfigError("data.bos", None, "a tokenizer with a begin token, for tasks with empty contexts")
            return tokenizer.bos_id

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            return tokenizer.encode(string).tolist() if add_special_tokens is False else with_begin(tokenizer, string)

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            return _sums(continuer, [(context, continuation) for _, context, continuation in requests])

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
            return [likelihood for likelihood, _ in _sums(continuer, [([self.eot_token_id], ids) for ids in texts])]

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            prompts = [self.tok_encode(request.args[0]) for request in requests]
            settings = [request.args[1] for request in requests]
            stops = [_stops(own.get("until")) for own in settings]
            steps = [int(own.get("max_gen_toks", MAX_GEN_TOKS)) for own in settings]

            def text_of(ids: list[int]) -> str:
                return tokenizer.decode(np.array([i for i in ids if i != tokenizer.bos_id], dtype=np.int64))

            def done(row: int, ids: list[int]) -> bool:
                return ids[-1] == tokenizer.bos_id or (
                    bool(stops[row]) and _before_stop(text_of(ids), stops[row]) is not None
                )

            texts = [text_of(ids) for ids in continuer.greedy(prompts, steps, done)]
            before = [_before_stop(text, stop) for text, stop in zip(texts, stops, strict=True)]
            return [text if cut is None else cut for text, cut in zip(texts, before, strict=True)]

    return LcprobeLM()


def _sums(continuer: Continuations, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation and whether greedy decoding gives it; 0 and True for an empty one, as of
    lm-eval's own models."""
    written = [i for i, (_, continuation) in enumerate(pairs) if len(continuation)]
    sums = [(0.0, True)] * len(pairs)
    for i, (likelihood, right) in zip(written, continuer.likelihoods([pairs[i] for i in written]), strict=True):
        sums[i] = (float(likelihood.sum()), bool(right.all()))
    return sums


def _load(manager: Any, name: str, online: bool, seed: int) -> Any:
    random.seed(seed)  # lm-eval's generators draw from the global streams
    np.random.seed(SEED)
    try:
        return manager.load([name])
    except Exception as error:  # anything that a task, datasets or the hub raises
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        allowed = "a task whose data can be generated here"
        if not online:
            allowed += ", or probe.harness.online=true with a connection"
        raise ConfigError("--harness", name, f"{allowed} ({type(error).__name__}: {reason})") from None


def _scores(task: str, row: dict[str, Any], samples: list[dict[str, Any]]) -> Iterator[HarnessScore]:
    for key, value in row.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        if metric.isdigit() and value == -1:  # a length that was not requested
            continue
        stderr = row.get(f"{metric}_stderr,{kind}")
        values = [s[metric] for s in samples if s["filter"] == kind and metric in s]
        values = [float(v) for v in values if isinstance(v, int | float) and not (metric.isdigit() and v == -1)]
        are_shares = (
            bool(values) and all(0 <= v <= 1 for v in values) and abs(sum(values) / len(values) - value) < 1e-9
        )
        label = metric if kind == "none" else f"{metric} ({kind})"
        n = len(values) or int(row.get("sample_len", row.get("sample_count", 0)) or 0)
        known = float(stderr) if isinstance(stderr, int | float) else None
        yield HarnessScore(task, label, float(value), known, n, tuple(values) if are_shares else None)


def _stops(until: Any) -> list[str]:
    return [s for s in ([until] if isinstance(until, str) else until or []) if s]


def _before_stop(text: str, stops: list[str]) -> str | None:
    """The text before the first stop string, or None if there is none."""
    places = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(places)] if places else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Sends progress of lm-eval's generators to stderr, and drops its warnings about missing aggregations."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _buffered_output() -> Iterator[None]:
    """Buffers output, which goes to stderr at the end; a ConfigError, whose message is one line, drops it.

    Of a progress bar only the last state is kept.
    """
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            yield
    except ConfigError:
        output = io.StringIO()
        raise
    finally:
        for line in filter(None, output.getvalue().split("\n")):
            print(line.rpartition("\r")[2], file=sys.stderr)


@contextmanager
def _hub(online: bool) -> Iterator[None]:
    """Unless online, the hub's libraries use their caches or fail at once, instead of retrying for half a minute, and
    nltk downloads nothing.
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
