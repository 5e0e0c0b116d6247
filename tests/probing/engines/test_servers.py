"""Servers as engines: the scores of the same model here, sample by sample; what is refused; and a server that dies in the middle."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lcprobe.errors import ConfigError, ServerError, run_command
from lcprobe.lengths import in_tokens
from lcprobe.probing.config import Grid, ServerConfig
from lcprobe.probing.continuation_scoring import ContinuationScorer
from lcprobe.probing.engines.parity import check_parity, measure_parity
from lcprobe.probing.engines.servers import SERVERS, server
from lcprobe.probing.external.lm_eval import harness_model
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.runner import ProbedCheckpoint, parity_pairs, run_plan
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import MemoryStore, Store
from lcprobe.probing.substring import Continuation
from tests.probing.test_scoring import items_of
from validation.servers import Faults, stand_in

QUICK = ServerConfig(backoff_s=0.01, retries=2, batch=7)
KINDS = sorted(SERVERS)


@pytest.fixture
def tokenizer(tasks):
    return tasks.materials.tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_model_sample_by_sample(trained, tasks, tokenizer, kind):
    items = [
        replace(item, continuation=Continuation(12, (tokenizer.decode(item.answer).strip(),)))
        for task in ("single", "multikey")
        for item in items_of(tasks, task, 12)
    ]
    want = ModelScorer(trained, tokenizer, "cpu", 64).score(items)
    with stand_in(trained, tokenizer, kind) as running:
        engine = server(kind, running.address + "/v1/", tokenizer, QUICK)
        scored = ContinuationScorer(engine, tokenizer).score(items)
    for a, b in zip(want, scored, strict=True):
        assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=2e-4)
        assert replace(b, log_likelihood=0.0) == replace(a, log_likelihood=0.0, read_tokens=None)
    assert 0 < np.mean([s.exact for s in want]) < 1, "the comparison needs hits and misses"
    assert engine.max_length == (4096 if kind == "vllm" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_ends_where_it_is_done(untrained, tokenizer, kind):
    prompts = [tokenizer.encode(text) for text in ("The people of", "Congress shall make no", "In the year")]
    steps = [9, 4, 7]
    with stand_in(untrained, tokenizer, kind) as running:
        engine = server(kind, running.address, tokenizer, replace(QUICK, batch=2))
        for done in (lambda *_: False, lambda i, ids: len(ids) >= 3 + i):
            want = Continuer(untrained, "cpu", 64, 10**6).greedy(prompts, steps, done)
            text = [tokenizer.decode(np.array(ids)) for ids in engine.greedy(prompts, steps, done)]
            assert text == [tokenizer.decode(np.array(ids)) for ids in want]


def test_lm_eval_reads_servers_too(untrained, tokenizer):
    from types import SimpleNamespace

    requests = [SimpleNamespace(args=("The people of", text)) for text in (" the", " war", " States of")]
    here = harness_model(Continuer(untrained, "cpu", 64, 10**6), tokenizer)
    with stand_in(untrained, tokenizer, "vllm") as running:
        there = harness_model(server("vllm", running.address, tokenizer, QUICK), tokenizer)
        values = there.loglikelihood(requests, disable_tqdm=True)
    for (a, hit), (b, same) in zip(values, here.loglikelihood(requests, disable_tqdm=True), strict=True):
        assert (a, hit) == (pytest.approx(b, abs=2e-4), same)


def plan_of(tasks):
    return tasks.plan([Grid(tasks=["single", "multikey"], lengths=in_tokens(64, 100), depths=1, n=3)])


def test_the_gate_passes_the_same_weights_and_refuses_others(trained, untrained, tasks, tokenizer):
    pairs = parity_pairs(plan_of(tasks), tasks, 10)
    assert len(pairs) == 10
    assert len({len(prompt) + len(answer) for prompt, answer in pairs}) > 1, "of several lengths"
    reference = Continuer(trained, "cpu", 64, 4096)
    for kind in KINDS:
        with stand_in(trained, tokenizer, kind) as running:
            parity = check_parity("here", server(kind, running.address, tokenizer, QUICK), reference, pairs, 0.05)
        assert (parity.samples, parity.tokens, parity.disagree) == (10, sum(len(a) for _, a in pairs), 0)
        assert parity.largest < 1e-4
    for model, faults in ((trained, Faults(noise=0.2)), (untrained, Faults())):
        with stand_in(model, tokenizer, "vllm", faults) as running:
            engine = server("vllm", running.address, tokenizer, QUICK)
            with pytest.raises(ConfigError, match=r"max \|dlogprob\|.*server\.limit=0.05 nats"):
                check_parity("vllm:there", engine, reference, pairs, 0.05)
    with stand_in(trained, tokenizer, "vllm", Faults(noise=0.2)) as running:
        found = measure_parity(server("vllm", running.address, tokenizer, QUICK), reference, pairs, 0.05)
        assert found.largest == pytest.approx(0.2, abs=1e-3)


def test_a_difference_that_is_no_number_is_above_every_limit():
    class Broken:
        def likelihoods(self, pairs):
            return [(np.array([np.nan]), np.array([True]))]

    class Fine:
        def likelihoods(self, pairs):
            return [(np.array([-1.0]), np.array([True]))]

    assert not measure_parity(Broken(), Fine(), [([1], [2])], 0.05).within


def test_a_busy_server_is_asked_again(trained, tasks, tokenizer):
    pairs = parity_pairs(plan_of(tasks), tasks, 3)
    with stand_in(trained, tokenizer, "openai", Faults(busy=2, takes_zero=False)) as running:
        engine = server("openai", running.address, tokenizer, QUICK)
        assert measure_parity(engine, Continuer(trained, "cpu", 64, 4096), pairs, 0.05).within
        running.faults.busy = 9
        with pytest.raises(ServerError, match=rf"{running.address}: no answer in 3 tries \(status 503\)"):
            engine.likelihoods(pairs)


def test_a_server_that_dies_in_the_middle_loses_nothing(trained, tasks, tokenizer, tmp_path, capsys):
    plan, checkpoint = plan_of(tasks), ProbedCheckpoint("mine", "digest", 0, 0)
    small = {"batch_tokens": 400}  # several batches
    whole = MemoryStore()
    scorer = ContinuationScorer(Continuer(trained, "cpu", 64, 4096), tokenizer)
    want = whole.read(run_plan(plan, tasks, scorer, checkpoint, whole, **small)).to_pylist()
    store = Store(tmp_path / "records")

    def probe(address):
        engine = ContinuationScorer(server("vllm", address, tokenizer, QUICK), tokenizer)
        return run_plan(plan, tasks, engine, checkpoint, store, **small)

    with stand_in(trained, tokenizer, "vllm") as running:
        probe(running.address)
        needed = running.requests
    store = Store(tmp_path / "again")
    with stand_in(trained, tokenizer, "vllm", Faults(dies_after=needed // 2)) as running:
        address = running.address
        assert run_command(lambda: probe(address) and None) == 74
    # where a command has set up logging before, the further tries are lines of their own
    *tries, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {address}: no answer in 3 tries")
    assert all(address in one for one in tries)
    with stand_in(trained, tokenizer, "vllm") as running:
        records = store.read(probe(running.address)).to_pylist()
        assert 0 < running.requests < needed, "what was finished is not asked again"
    numbers = ("exact", "rank", "prediction", "token_accuracy", "index", "depth", "task")
    assert [[r[name] for name in numbers] for r in records] == [[r[name] for name in numbers] for r in want]


REFUSED = {
    "no address": ("vllm", {}, "example", "an address such as http"),
    "nobody there": ("vllm", {}, "http://127.0.0.1:9", "http://127.0.0.1:9: no answer in 3 tries"),
    "another model": ("openai", {"model": "big"}, None, "no model big; allowed: tiny"),
    "other API": ("openai", {}, Faults(echoes=False), "log-probabilities of 0 tokens for a prompt of"),
    "a token at the start": ("vllm", {}, Faults(begins=7), "a prompt of 100: the server puts 1 token in front"),
    "the same with echo": ("openai", {}, Faults(begins=7), "a prompt of 100: the server puts 1 token in front"),
    "no such kind": ("vlm", {}, None, "did you mean 'vllm'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_such_server_is_refused_in_one_line(untrained, tokenizer, what):
    kind, settings, given, text = REFUSED[what]
    faults = given if isinstance(given, Faults) else Faults()
    with stand_in(untrained, tokenizer, "openai" if kind == "openai" else "vllm", faults) as running:
        address = given if isinstance(given, str) else running.address
        with pytest.raises((ConfigError, ServerError)) as raised:
            server(kind, address, tokenizer, replace(QUICK, **settings)).likelihoods([([5] * 98, [6, 7])])
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_argmax_of_equal_log_probabilities(untrained, tokenizer):
    class Two:
        """Two tokens share the largest log-probability at every position: 3 and 9."""

        max_length = needs_length = selection = None
        rereads = False

        def new_state(self, batch, length=None):
            return self

        def rows(self, index):
            return self

        def prompt_ended(self, state):
            return state

        def hidden(self, tokens, *, state):
            return tokens[..., None].float(), state

        def logits(self, hidden):
            logits = torch.zeros(*hidden.shape[:-1], tokenizer.vocab_size)
            logits[..., [3, 9]] = 5.0
            return logits

    with stand_in(Two(), tokenizer, "vllm") as running:
        engine = server("vllm", running.address, tokenizer, QUICK)
        assert engine.likelihoods([([1, 2], [3, 9, 4])])[0][1].tolist() == [True, False, False]
        assert engine.ties == 1, "3 and 9 are among the rows where 9 was forced"
        assert "1 tokens shared the largest" in engine.note
