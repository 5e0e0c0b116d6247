"""`explain` on a reader of known habits: what it says, what it writes; and the command line's errors."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.cli.commands import main
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.probing.explain.measure import Bench
from lcprobe.probing.explain.outputs import Output, facts_of_outputs
from lcprobe.probing.explain.prompts import Subject
from lcprobe.schema import build
from lcprobe.seeds import Stream
from lcprobe.studies.evaluation.explaining.explain import document_of, explain
from lcprobe.tasks.episode import Formats
from lcprobe.tasks.presets import choose_task

LENGTH = 160
FACT = re.compile(r"The secret value for (\S+) is (\d+)\.")


class Reader:
    """Knows the value of a key in 60 % of samples, and says it after two words in a third of these."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, prompts, steps):
        out = []
        for prompt, n in zip(prompts, steps, strict=True):
            text = self.tokenizer.decode(np.array(prompt))
            values, key = dict(FACT.findall(text)), text.rstrip().split()[-2]
            draw = Stream("reader", key, values.get(key, "")).uniform(1)[0]
            said = f" {values[key]}; and" if draw < 0.4 else f" the number {values[key]};" if draw < 0.6 else " 0;"
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
    assert document["kind"] == "several"
    assert "outputs=FILE" in document["verdict"]
    assert "prompts and" not in document["verdict"], "they read the same"
    assert json.loads(json.dumps(document))["tried"]["scorer: substring"]["numbers"][0] == pytest.approx(
        0.6, abs=0.07
    )
    known = explain(bench, wanted(0.61, scorer="ours"))
    assert known.decision.verdict == "none", "what is described is no cause"


def test_what_nothing_explains_is_said(bench):
    found = explain(bench, wanted(0.9))
    document = document_of(found, wanted(0.9), bench.subject)
    assert document["kind"] == "none"
    assert document["verdict"].startswith("unexplained")
    assert document["named"] == []


def test_their_own_outputs_name_the_scorer_with_certainty(bench):
    outputs = [Output("x", " the number 5" if i < 30 else " 5", ("5",)) for i in range(100)]
    facts = facts_of_outputs(outputs, bench.subject.tokenizer, ())
    found = replace(explain(bench, wanted(0.7)), outputs=facts)
    notes = "\n".join(document_of(found, wanted(0.7), bench.subject)["notes"])
    assert "certain: 0.7 is what prefix or exact or first_word gives" in notes
    notes = "\n".join(document_of(found, wanted(1.0), bench.subject)["notes"])
    assert "certain: 1 is what substring or first_line gives" in notes
    assert "so that the scorer is a cause" in notes


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
        (["FOLDER", "task=niah", "length=64", "theirs=0.6", "template=chat"], "did you mean 'chatml"),
        (
            ["FOLDER", "task=niah", "length=64", "theirs=0.6", "outputs=missing.jsonl"],
            "an existing file of JSON lines",
        ),
        (["FOLDER", "task=niah", "length=64", "theirs=0.6"], "the folder of a study, run or checkpoint"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, message):
    given = [str(tmp_path) if word == "FOLDER" else word for word in words]
    assert main(["explain", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
