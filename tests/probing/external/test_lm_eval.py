"""The adapter through lm-eval's own base class: log-likelihoods of texts, stops, and what is refused. No task is built here."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.probing.config import HarnessConfig
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.external import lm_eval as bridge
from lcprobe.probing.external.lm_eval import harness_model, require_harness, run_task
from lcprobe.probing.inference.continuation import Continuer


@pytest.fixture(scope="module")
def lm(untrained, tokenizer):
    return harness_model(Continuer(untrained, "cpu", 16, 400), tokenizer)


def requests(*args):
    return [SimpleNamespace(args=one) for one in args]


def total(model, ids, n):
    """Log-likelihood of the last n of ids, by one plain forward pass."""
    with torch.no_grad():
        hidden, _ = model.hidden(torch.tensor([ids]))
        logs = model.logits(hidden[0, -n - 1 : -1]).log_softmax(-1)
    return float(logs.gather(-1, torch.tensor(ids[-n:])[:, None]).sum())


def test_likelihoods_of_texts(lm, untrained, tokenizer):
    bos = tokenizer.bos_id
    cases = [
        ("The people of the United States", " are", " are"),
        ("The people of the United States ", "are free", " are free"),  # lm-eval moves the space to the continuation
        ("The people of the United States", " have a government", " have a government"),
        ("", "Fellow citizens", "Fellow citizens"),
    ]
    scores = lm.loglikelihood(requests(*((c, t) for c, t, _ in cases)), disable_tqdm=True)
    for (context, _, scored), (value, greedy) in zip(cases, scores, strict=True):
        ids = [bos, *tokenizer.encode(context.rstrip() + scored).tolist()]
        n = len(ids) - 1 - len(tokenizer.encode(context.rstrip()))
        assert value == pytest.approx(total(untrained, ids, n), abs=1e-3)
        assert not greedy
    choices = lm.loglikelihood(requests(*(("It is", f" {w}") for w in ("a", "the", "war"))), disable_tqdm=True)
    assert len({value for value, _ in choices}) == 3


def test_rolling_scores_the_whole_text_once(lm, untrained, tokenizer):
    text = "The state of the union is good, and it has been so for a long time. " * 4
    ids = tokenizer.encode(text).tolist()
    assert len(ids) > 50, "several chunks"
    (value,) = lm.loglikelihood_rolling(requests((text,)))
    assert value == pytest.approx(total(untrained, [tokenizer.bos_id, *ids], len(ids)), abs=5e-3)


def test_what_is_empty_has_likelihood_one(lm):
    """As of lm-eval's own models."""
    assert lm.loglikelihood(requests(("A context", ""), ("A context", " of")), disable_tqdm=True)[0] == (0.0, True)
    scores = lm.loglikelihood_rolling(requests(("",), ("A text",)))
    assert scores[0] == 0.0
    assert scores[1] == lm.loglikelihood_rolling(requests(("A text",)))[0] < 0


def test_generation_stops_where_it_should(lm, untrained, tokenizer):
    prompts = ["The people", "Congress shall make no law", "In the year of"]
    plain = lm.generate_until(requests(*((p, {"until": [], "max_gen_toks": 12}) for p in prompts)))
    encoded = [[tokenizer.bos_id, *tokenizer.encode(prompt).tolist()] for prompt in prompts]
    decoded = Continuer(untrained, "cpu", 16, 400).greedy(encoded, [12] * 3, lambda *_: False)
    assert plain == [tokenizer.decode(np.array(ids)) for ids in decoded]
    stop = plain[0][4:7]
    cut = lm.generate_until(requests(*((p, {"until": [stop], "max_gen_toks": 12}) for p in prompts)))
    assert cut == [text.split(stop)[0] for text in plain]
    assert cut[0] != plain[0]
    assert lm.generate_until(requests((prompts[0], {"until": stop, "max_gen_toks": 12}))) == cut[:1], (
        "until may be one text"
    )


def test_generation_stops_where_the_model_ends_the_document(tokenizer):
    class Ends(ProbedModel):
        calls = 0

        def new_state(self, batch, length=None):
            return State(torch.zeros(batch, 1))

        def hidden(self, tokens, *, state):
            self.calls += 1
            return torch.nn.functional.one_hot(tokens, tokenizer.vocab_size).float(), state

        def logits(self, hidden):
            return torch.nn.functional.one_hot(
                torch.full(hidden.shape[:-1], tokenizer.bos_id), tokenizer.vocab_size
            ).float()

    class State:
        def __init__(self, tensor):
            self.tensor = tensor

        def rows(self, at):
            return State(self.tensor[at])

    model = Ends()
    texts = harness_model(Continuer(model, "cpu", 64, 400), tokenizer).generate_until(
        requests(("a", {"max_gen_toks": 50}))
    )
    assert texts == [""]
    assert model.calls == 1


def test_a_text_with_its_own_begin_token_gets_no_second(lm, tokenizer):
    name = tokenizer.decode(np.array([tokenizer.bos_id]))
    assert lm.tok_encode(f"{name}The people") == lm.tok_encode("The people")
    assert lm.tok_encode("The people", add_special_tokens=False) == lm.tok_encode("The people")[1:]


def test_a_multiple_choice_task_is_scored_as_by_hand(lm, untrained, tokenizer, tmp_path):
    """A task of our own through lm-eval's evaluator: its accuracy is that of the likelihoods of a plain forward pass."""
    from lm_eval.tasks import TaskManager

    words = ["war", "law", "a nation", "peace", "the people", "states"]
    rows = [{"q": f"This is about {words[i]} and", "choices": words, "gold": (i * 5 + 1) % 6} for i in range(6)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    sources = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(tmp_path / "rows.json"), "cache_dir": str(tmp_path)},
    }
    template = {
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "test_split": "train",
    }
    metric = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    manager = TaskManager(include_defaults=False)
    loaded = manager.load([{"task": "ours", "output_type": "multiple_choice", **sources, **template, **metric}])
    tasks = bridge.HarnessTasks(manager, {"ours": loaded})
    result = run_task(tasks, "ours", lm, HarnessConfig(limit=5))
    assert run_task(tasks, "ours", lm, HarnessConfig(limit=5)) == result, "tasks are built once for all models"
    hits = []
    for row in rows[:5]:
        context = [tokenizer.bos_id, *tokenizer.encode(row["q"]).tolist()]
        endings = [tokenizer.encode(f" {word}").tolist() for word in words]
        best = np.argmax([total(untrained, context + ending, len(ending)) for ending in endings])
        hits.append(float(best == row["gold"]))
    (score,) = result.scores
    assert (score.metric, score.n, score.hits) == ("acc", 5, tuple(hits))
    assert score.value == pytest.approx(np.mean(hits))
    assert score.stderr == pytest.approx(np.std(hits, ddof=1) / 5**0.5)
    assert 0 < sum(hits) < 5, "the comparison needs hits and misses"


@pytest.mark.parametrize("error", [None, ConfigError("a", 1, "b"), OSError("disk")])
def test_output_while_tasks_are_built_is_dropped_if_a_config_error_explains_the_failure(capsys, error):
    try:
        with bridge._buffered_output():
            print("making\nbar:  0 %\rbar: 99 %")
            print("nltk", file=sys.stderr)
            assert capsys.readouterr() == ("", ""), "it waits"
            if error:
                raise error
    except (ConfigError, OSError) as raised:
        assert raised is error
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == ("" if isinstance(error, ConfigError) else "making\nbar: 99 %\nnltk\n")


def test_without_lm_eval_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(
        bridge, "find_spec", lambda name: None if name == "lm_eval" else importlib.util.find_spec(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'lcprobe\[lmeval\]'"):
        require_harness()


def test_a_task_that_samples_is_refused(lm):
    settings = {"output_type": "generate_until", "generation_kwargs": {"do_sample": True}}
    task = SimpleNamespace(task_name="dice", get_config=settings.get)
    tasks = bridge.HarnessTasks(None, {"dice": {"tasks": {"dice": task}, "groups": {}}})
    with pytest.raises(ConfigError, match="dice, which samples"):
        run_task(tasks, "dice", lm, HarnessConfig())
