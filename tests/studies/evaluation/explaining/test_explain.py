"""`explain` on a reader of known habits: what it says, what it writes; and the command line's errors."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.cli.commands import main
from lcprobe.config import parse
from lcprobe.errors import DataError
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.probing.explain.measure import Bench
from lcprobe.probing.explain.outputs import Expected, Output, contradictions, facts_of_outputs
from lcprobe.probing.explain.prompts import Subject, prompts_of
from lcprobe.probing.explain.protocol import Protocol
from lcprobe.schema import build
from lcprobe.seeds import Stream
from lcprobe.studies.evaluation.explaining.explain import document_of, explain, subject_of
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.haystack import Materials

LENGTH = 160
ASKED = re.compile(r"The secret value for (\S+) is")
FACT = re.compile(r"The secret value for (\S+) is (\d+)\.")


class Reader:
    """Knows the value of a key in 60 % of samples, and says it after two words in a third of these."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, prompts, steps):
        out = []
        for prompt, n in zip(prompts, steps, strict=True):
            text = self.tokenizer.decode(np.array(prompt))
            values, key = dict(FACT.findall(text)), ASKED.findall(text)[-1]
            draw = Stream("reader", key, values.get(key, "")).uniform(1)[0]
            value = values.get(key, "0")  # a prompt may be cut
            said = f" {value}; and" if draw < 0.4 else f" the number {value};" if draw < 0.6 else " 0;"
            out.append(self.tokenizer.encode(said).tolist()[:n])
        return out


@pytest.fixture(scope="module")
def bench(materials):
    task = choose_task({"type": "niah", "n_keys": 2, "digits": 3}, "task").create(materials)
    subject = Subject("mine", task, Formats("noise", "words", "numbers"), materials)
    return Bench(Reader(materials.tokenizer), subject, 200)


def wanted(theirs, **more):
    given = {"task": "mine", "length": LENGTH, "theirs": theirs, "n": 400, "our_n": 200, "causes": ["scorer", "bos"]}
    return build(ExplainConfig, {**given, **more}, "")


def test_ours_are_the_episodes_of_the_probe_whatever_the_haystack(tmp_path, prepared, data_settings):
    """Keys and values occur in none of the documents beside which a model is probed, RULER's noise or not."""
    progress = {"corpus_digest": prepared.manifest["corpus_digest"], "tokenizer_digest": ""}
    (tmp_path / "state.json").write_text(json.dumps(progress))
    target = ProbeTarget("run", TrainedCheckpoint(tmp_path, None), parse({"data": data_settings}))
    settings = wanted(0.5, task={"type": "niah", "n_keys": 8, "digits": 2, "formats": {"haystack": "noise"}})
    subject = subject_of(target, target.config, settings)
    task = choose_task({"type": "niah", "n_keys": 8, "digits": 2}, "task").create(prepared.materials("probe"))
    for index in range(8):
        factors = Factors(subject.formats, 400, 0.5, index)
        assert subject.task.episode(factors).ids.tolist() == task.episode(factors).ids.tolist()
    bare = type(task)(task.config, Materials(subject.tokenizer))
    assert bare.episode(factors).ids.tolist() != task.episode(factors).ids.tolist(), "or the comparison says nothing"
    (tmp_path / "state.json").write_text(json.dumps({"corpus_digest": "0" * 64}))
    other = replace(target, source=TrainedCheckpoint(tmp_path, None))
    with pytest.raises(DataError, match="trained on corpus"):
        subject_of(other, other.config, settings)


def test_noise_needs_no_explanation_and_no_further_reading(bench):
    found = explain(bench, wanted(0.41))
    assert found.decision.verdict == "noise"
    assert not found.measured
    document = document_of(found, wanted(0.41), bench.subject)
    assert "sampling noise accounts" in document["verdict"]
    assert [row["number"] for row in document["table"]] == ["theirs", "ours"]


def test_the_scorer_is_named_and_what_would_tell_it_apart(bench):
    found = explain(bench, wanted(0.61))
    document = document_of(found, wanted(0.61), bench.subject)
    assert {a.name for a in found.decision.named} == {"scorer: substring", "scorer: first_line"}
    assert document["kind"] == "coincidence", "one number, and several changes"
    assert "would account for the difference" in document["verdict"]
    assert f"2 of the {found.decision.tried} changes tried" in document["verdict"]
    assert "something else" in document["verdict"]
    assert document["something else"] + sum(a["share"] for a in document["named"]) == pytest.approx(1)
    assert "outputs=FILE" in document["verdict"]
    assert "prompts and" not in document["verdict"], "they read the same"
    assert json.loads(json.dumps(document))["tried"]["scorer: substring"]["numbers"][0] == pytest.approx(
        0.6, abs=0.07
    )
    known = explain(bench, wanted(0.61, scorer="ours"))
    assert known.decision.verdict == "none", "what is described is no cause"


def test_rulers_protocol_is_among_what_is_tried(bench):
    """Substring and its budget inside the length belong together: one condition, listed where it fits."""
    first, n, budget = 5000, 400, 40
    theirs_of = Bench(bench.continuations, bench.subject, n, first)
    protocol = Protocol(scorer="substring", room="budget", budget=budget)
    (measured,) = theirs_of.measure([protocol], LENGTH).values()
    number = round(float(measured.scores.mean()), 4)
    settings = wanted(number, budget=budget, causes=["protocol", "scorer", "length", "cut", "space", "needles"])
    found = explain(bench, settings)
    assert "protocol: ruler" in [a.name for a in found.decision.named]
    assert found.conditions["protocol: ruler"].protocol == protocol
    assert found.decision.verdict != "one"


def test_what_nothing_explains_is_said(bench):
    found = explain(bench, wanted(0.9))
    document = document_of(found, wanted(0.9), bench.subject)
    assert document["kind"] == "none"
    assert document["verdict"].startswith("unexplained")
    assert document["named"] == []


def outputs_of(bench, reader, n=200, **changes):
    """What somebody's file would be: prompts of other samples than ours, under a protocol, and what is written."""
    tokenizer, prompts = (
        bench.subject.tokenizer,
        prompts_of(Protocol(**changes), bench.subject, LENGTH, n, first=5000),
    )
    written = reader([p.ids for p in prompts], [16] * n)
    return [
        Output(tokenizer.decode(np.array(p.ids[1:])), tokenizer.decode(np.array(w)), p.references)
        for p, w in zip(prompts, written, strict=True)
    ]


def test_their_own_outputs_leave_one_of_several_causes(bench):
    """From the number alone, a scorer and a place of the needle may be alike; their file has the places."""
    outputs = outputs_of(bench, Reader(bench.subject.tokenizer))
    facts = facts_of_outputs(outputs, bench.subject.tokenizer, ())
    theirs = round(facts.numbers["substring", "mean"], 4)
    settings = wanted(theirs, n=200)
    alone, found = explain(bench, settings), explain(bench, settings, facts=facts)
    assert "scorer: substring" in [a.name for a in alone.decision.named]
    assert {a.name for a in found.decision.named} <= {"scorer: substring", "scorer: first_line"}
    notes = "\n".join(document_of(found, settings, bench.subject)["notes"])
    assert f"certain: {theirs:g} is what substring or first_line gives" in notes
    assert "so that the scorer is a cause" in notes


def test_what_their_file_shows_rules_out_the_rest(bench):
    """Their prompts are in a chat template, with the needle last: nothing else may be named."""
    own = Protocol()
    chat = facts_of_outputs(
        outputs_of(bench, Reader(bench.subject.tokenizer), template="chatml"), bench.subject.tokenizer, ()
    )
    last = facts_of_outputs(
        outputs_of(bench, Reader(bench.subject.tokenizer), depths=(1.0,)), bench.subject.tokenizer, ()
    )

    def ruled_out(facts, protocol, place=0.5):
        return contradictions(facts, Expected(protocol, [("prefix", "mean")], LENGTH - 6, 1, place, 1.0))

    assert not ruled_out(chat, replace(own, template="chatml"))
    assert "have a chat template" in ruled_out(chat, own)[0]
    assert "this chat template" in ruled_out(chat, replace(own, template="chatml+"))[0]
    assert "this instruction" in ruled_out(chat, replace(own, template="chatml", wrapper="ruler"))[0]
    assert not ruled_out(last, replace(own, depths=(1.0,)), last.place)
    assert "needles are at" in ruled_out(last, own)[0]
    assert "scorer" in ruled_out(last, replace(own, scorer="exact"), last.place)[0]


def test_numbers_that_are_no_mean_of_n_are_noticed(bench):
    notes = document_of(explain(bench, wanted(0.4321)), wanted(0.4321), bench.subject)["notes"]
    assert any("is no mean of 400 samples" in note for note in notes)
    assert not document_of(explain(bench, wanted(0.4325)), wanted(0.4325), bench.subject)["notes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one folder of a run or checkpoint"),
        (["FOLDER", "FOLDER"], "one folder of a run or checkpoint"),
        (["FOLDER"], "task: given 'nothing'"),
        (["FOLDER", "task=niah", "length=64"], "theirs: given 'nothing'"),
        (["FOLDER", "task=niah", "length=64", "theirs=62"], "0 .. 1, such as 0.62 for 62 %"),
        (["FOLDER", "task=niah", "length=[64,128]", "theirs=0.6"], "2, one for each length"),
        (["FOLDER", "task=niah", "length=0", "theirs=0.6"], "tokens, >= 1"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "n=0"], "n: given 0"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "scorer=substrng"], "ours | prefix | substring"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "causes=[bso]"], "did you mean 'bos'?"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "lenght=3"], "did you mean 'length'?"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "wrapper=rulr"], "did you mean 'ruler'?"),
        (
            ["FOLDER", "task=niah", "length=64", "theirs=0.6", "outputs=missing.jsonl"],
            "an existing file of JSON lines",
        ),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "samples=lm_eval"], "ours, lm-eval or an existing file"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "counted=shiped"], "allowed: shipped, shipped-1024"),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6"], "the folder of a study, run or checkpoint"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, message):
    given = [str(tmp_path) if word == "FOLDER" else word for word in words]
    assert main(["explain", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
