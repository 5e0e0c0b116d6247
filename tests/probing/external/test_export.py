"""Exported samples: their text is the episode's ids, lm-eval scores them as we do on the same model, sample by sample, and outputs that
come back are the same records."""

import json
import math
import re
import sys
import types

import numpy as np
import pytest

from lcprobe.errors import DataError
from lcprobe.probing.config import Grid
from lcprobe.probing.external import export
from lcprobe.probing.external.lm_eval import harness_model
from lcprobe.probing.external.outputs import Output, missing_score, read_outputs, read_samples, record_from, score_of
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import MemoryStore
from lcprobe.records import table_of
from lcprobe.schema import build

KEYS = ("task", "length", "depth", "index", "query")


@pytest.fixture(scope="module")
def plan(tasks):
    return tasks.plan([build(Grid, {"lengths": ["64t", "96t"], "depths": 2, "n": 6}, "grid")], 64)


@pytest.fixture(scope="module")
def folder(tasks, plan, tmp_path_factory):
    """An export of the plan; the tasks' settings are those of the conftest."""
    place, budgets = tmp_path_factory.mktemp("export"), {}
    for unit in plan.units:
        samples = export.samples_of(unit, tasks, bos=False)
        export.write_samples(place, unit, samples)
        budgets[unit] = export.budget(unit, tasks, samples)
    export.write_harness_tasks(place, "grid", budgets)
    export.write_inspect(place, "grid", max(budgets.values()))
    return place


@pytest.fixture(scope="module")
def samples(folder):
    return [sample for path in sorted((folder / "samples").glob("*.jsonl")) for sample in read_samples(path)]


def ours(model, tasks, plan, generate=False):
    """Our records by the sample's factors."""
    store, scorer = MemoryStore(), ModelScorer(model, tasks.tokenizer, "cpu", 64, generate)
    table = store.read(run_plan(plan, tasks, scorer, ProbedCheckpoint("m", "0" * 16, 1, 2), store))
    return {tuple(row[key] for key in KEYS): row for row in table.to_pylist()}


def of(sample):
    return tuple(sample.factors[key] for key in KEYS)


def test_the_text_is_that_of_the_episode(samples, tasks, plan):
    assert len({sample.id for sample in samples}) == len(samples)
    found = {sample.factors["episode"]: sample for sample in samples}
    tok, n = tasks.tokenizer, 0
    for unit in plan.units:
        for episode in tasks.episodes(unit):
            n += len(episode.queries)
            q = episode.queries[0]
            sample = found[episode.digest]
            first = next(s for s in samples if s.factors["episode"] == episode.digest and s.factors["query"] == 0)
            assert tok.encode(first.prompt + first.target).tolist() == episode.ids[1 : q.stop].tolist()
            assert first.prompt_tokens == len(tok.encode(first.prompt)) + 1
            assert (sample.prompt[-1], sample.target[0]) == (":", " ")
    assert n == len(samples)


def test_lm_eval_scores_likelihoods_as_we_do_sample_by_sample(trained, tasks, plan, folder, samples, tmp_path):
    rows, out = run_lm_eval(harness_model(Continuer(trained, "cpu", 64, 4096), tasks.tokenizer), folder, tmp_path)
    mine = ours(trained, tasks, plan)
    assert 0 < sum(row["exact"] for row in mine.values()) < len(mine), "some answers are right"
    assert {kind: len(of_kind) for kind, of_kind in rows.items()} == dict.fromkeys(export.KINDS, len(samples))
    outputs = read_outputs(out)
    assert outputs.keys() == {sample.id for sample in samples}
    for sample in samples:
        row, output = mine[of(sample)], outputs[sample.id]
        assert rows["likelihood"][sample.id]["acc"] == row["exact"]
        assert rows["greedy"][sample.id]["exact_match"] == row["exact"]
        assert output.log_likelihood == pytest.approx(row["log_likelihood"], abs=1e-3)
        back = score_of(sample, output, tasks.tokenizer)
        same = ("exact", "distractor_hit", "prediction") if row["exact"] else ("exact",)
        assert {name: back[name] for name in same} == {name: row[name] for name in same}


def run_lm_eval(model, folder, out):
    """lm-eval's scores by kind and id, and its sample files."""
    pytest.importorskip("lm_eval")
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder / "lm_eval"), include_defaults=False)
    tags = [f"lcprobe_grid_{kind}" for kind in export.KINDS]
    result = simple_evaluate(model=model, tasks=tags, task_manager=manager, bootstrap_iters=0, log_samples=True)
    tracker = EvaluationTracker(output_path=str(out))
    tracker.general_config_tracker.model_name_sanitized, tracker.date_id = "m", "today"
    rows = {kind: {} for kind in export.KINDS}
    for name, of_task in result["samples"].items():
        kind = next(kind for kind in export.KINDS if name.startswith(f"lcprobe_grid_{kind}"))
        rows[kind] |= {row["doc"]["id"]: dict(row) for row in of_task}
        tracker.save_results_samples(name, of_task)
    return rows, sorted(out.rglob("samples_*.jsonl"))


def test_a_greedy_text_gives_our_scores(trained, tasks, plan, samples):
    mine = ours(trained, tasks, plan, generate=True)
    for sample in samples:
        row = mine[of(sample)]
        for said in (row["prediction"], row["prediction"].lstrip(), row["prediction"] + " and so on"):
            back = score_of(sample, Output("jsonl", said), tasks.tokenizer)
            for name in ("exact", "first_token", "distractor_hit", *(["prediction"] if row["exact"] else [])):
                assert back[name] == row[name], name
            assert back["prediction"] == back["prediction"].strip()
            assert back["substring"] >= row["exact"]
        assert back["log_likelihood"] is None


def test_a_record_has_every_column(samples, tasks):
    model = {
        "model": "x",
        "checkpoint": "external",
        "step": 0,
        "tokens": 0,
        "engine": "jsonl",
        "extension": "none",
        "factor": 1.0,
    }
    scores = [score_of(samples[0], Output("jsonl", samples[0].target), tasks.tokenizer), missing_score()]
    rows = table_of([record_from(samples[0], score, model) for score in scores]).to_pylist()
    assert [row["exact"] for row in rows] == [True, None]
    assert [row["status"] for row in rows] == ["ok", "missing"]
    assert rows[0]["chance"] == samples[0].factors["chance"]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_outputs_of_three_kinds_are_read(tmp_path):
    plain = write(tmp_path / "a.jsonl", {"id": "1", "output": " 42"})
    doc = {"id": "2"}
    harness = write(tmp_path / "b.jsonl", {"doc": doc, "resps": [["41"]]})
    likely = write(tmp_path / "c.jsonl", {"doc": doc, "resps": [[["-1.5", "True"]]]})
    log = {"status": "success", "samples": [
        {"id": "3", "output": {"choices": [{"message": {"role": "assistant", "content": "40"}}]}},
        {"id": "4", "output": {"choices": [{"message": {"content": [{"type": "text", "text": "39"}]}}]}},
        {"id": "5", "error": "it failed", "output": {"choices": []}},
    ]}  # fmt: skip
    (tmp_path / "d.json").write_text(json.dumps(log))
    assert read_outputs([plain, harness, likely, tmp_path / "d.json"]) == {
        "1": Output("jsonl", " 42"), "2": Output("lm_eval", "41", -1.5, True),
        "3": Output("inspect_ai", "40"), "4": Output("inspect_ai", "39"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"id": "1", "output": "a"}, {"id": "1", "output": "b"}], ":2: another output to 1"),
        ([{"output": "a"}], ":1: no id"),
        ([{"id": "1"}], ":1: not an output"),
        (["text"], ":1: given 'text'"),
        ([{"id": "1", "output": "\ud800"}], r":1: no JSON \(half a character"),
        ([{"id": "\udc00", "output": "a"}], r":1: no JSON \(half a character"),
        ([{"doc": {"id": "1"}, "resps": [[["x", "True"]]]}], ":1: a response that is neither"),
        ([{"doc": {"id": "1"}, "resps": [[["nan", "True"]]]}], ":1: given 'nan' as log-likelihood"),
        ([{"doc": {"id": "1"}, "resps": [[[math.nan, "True"]]]}], ":1: given nan as log-likelihood"),
        ([{"doc": {"id": "1"}, "resps": [[[-math.inf, "False"]]]}], ":1: given -inf as log-likelihood"),
        ([{"doc": {"id": "1"}, "resps": [[[10**400, "False"]]]}], ":1: a response that is neither"),
        ([{"doc": {"id": "1"}, "resps": [[[5.0, "True"]]]}], ":1: given 5.0 as log-likelihood"),
    ],
)
def test_files_that_are_no_outputs_are_one_line(tmp_path, rows, words):
    path = write(tmp_path / "out.jsonl", *rows)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}{words}.*; allowed: "):
        read_outputs([path])


@pytest.mark.parametrize(
    "output",
    [
        "text",
        {"choices": "text"},
        {"choices": ["text"]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": None}}]},
        {"choices": [{"message": {"content": [{"type": "text", "text": None}]}}]},
        {"choices": [{"message": {"content": [None]}}]},
    ],
)
def test_logs_that_are_none_of_inspect_are_one_line(tmp_path, output):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"samples": [{"id": "1", "output": output}]}))
    with pytest.raises(DataError, match=r"log\.json: sample 1: given output .*; allowed: "):
        read_outputs([path])


def test_what_rounding_puts_above_0_and_parts_without_text_are_read(tmp_path):
    likely = write(tmp_path / "a.jsonl", {"doc": {"id": "1"}, "resps": [[[1e-9, "True"]]]})
    parts = [{"type": "reasoning", "reasoning": "so"}, {"type": "text", "text": "4"}, {"type": "text", "text": "2"}]
    log = {"samples": [{"id": "2", "output": {"choices": [{"message": {"content": parts}}]}}]}
    (tmp_path / "b.json").write_text(json.dumps(log))
    assert read_outputs([likely, tmp_path / "b.json"]) == {
        "1": Output("lm_eval", None, 1e-9, True),
        "2": Output("inspect_ai", "42"),
    }


def test_the_inspect_task_has_all_samples_and_scores_them(folder, samples, monkeypatch):
    """With inspect_ai where it is installed, else with stand-ins of the names that its documentation has."""
    import asyncio

    found = {}
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        for name, module in stand_ins(found).items():
            monkeypatch.setitem(sys.modules, name, module)
    path = folder / "inspect_ai" / "tasks.py"
    module = types.ModuleType("exported_tasks")
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    made = module.lcprobe_grid()
    assert sorted(sample.id for sample in made.dataset) == sorted(sample.id for sample in samples)
    assert (made.config.temperature, made.config.max_tokens) == (0.0, max(s.answer_tokens for s in samples))
    score = made.scorer[0] if isinstance(made.scorer, list) else made.scorer
    for text, right in ((" 42; and", True), ("42", True), ("The 42", False), ("421", True), ("4", False)):
        state = types.SimpleNamespace(output=types.SimpleNamespace(completion=text))
        value = asyncio.run(score(state, types.SimpleNamespace(text="42"))).value
        assert (value == module.CORRECT) == right, text


def stand_ins(found):
    def record(**given):
        return types.SimpleNamespace(**given)

    def plain(wanted=None, **_):
        return wanted if callable(wanted) else (lambda wanted: wanted)

    names = {
        "inspect_ai": {"Task": record, "task": plain},
        "inspect_ai.dataset": {"MemoryDataset": lambda samples, name: samples, "Sample": record},
        "inspect_ai.model": {"GenerateConfig": record},
        "inspect_ai.scorer": {"CORRECT": "C", "INCORRECT": "I", "Score": record, "Target": object, "accuracy": plain,
                              "stderr": plain, "scorer": plain},
        "inspect_ai.solver": {"TaskState": object, "generate": plain},
    }  # fmt: skip
    modules = {}
    for name, content in names.items():
        modules[name] = types.ModuleType(name)
        modules[name].__dict__.update(content)
    return modules


@pytest.mark.slow
def test_lm_evals_own_model_class_agrees_on_a_checkpoint_of_transformers(tasks, plan, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    import torch
    from lm_eval.models.huggingface import HFLM

    from lcprobe.probing.engines.transformers_folder import transformers_model

    torch.manual_seed(0)
    sizes = {"vocab_size": 4096, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512, "pad_token_id": 0}  # fmt: skip
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    place = tmp_path / "model"
    model.save_pretrained(place)
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tasks.tokenizer._inner, eos_token="<|bos|>", pad_token="<|bos|>"
    )
    folder = tmp_path / "export"
    budgets, samples = {}, []
    for unit in plan.units:
        own = export.samples_of(unit, tasks, bos=True)
        samples += own
        export.write_samples(folder, unit, own)
        budgets[unit] = export.budget(unit, tasks, own)
    export.write_harness_tasks(folder, "grid", budgets)
    lm = HFLM(pretrained=model, tokenizer=peer, batch_size=4, device="cpu")
    rows, out = run_lm_eval(lm, folder, tmp_path / "out")
    mine = ours(transformers_model(place, torch.float32, "cpu"), tasks, plan)
    outputs = read_outputs(out)
    off = [abs(outputs[s.id].log_likelihood - mine[of(s)]["log_likelihood"]) for s in samples]
    assert max(off) < 1e-3
    assert all(rows["likelihood"][s.id]["acc"] == mine[of(s)]["exact"] for s in samples)
    said = ours(transformers_model(place, torch.float32, "cpu"), tasks, plan, generate=True)
    texts = [(outputs[s.id].text.strip(), said[of(s)]["prediction"].strip()) for s in samples]
    assert np.mean([a.startswith(b) or b.startswith(a) for a, b in texts]) > 0.95
