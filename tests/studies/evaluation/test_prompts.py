"""Prompt templates as a factor of the probe: resolved for each model, one variant and one reader for each, the same samples in all, and
records and report that name them."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from lcprobe.analysis.report.write import write_report
from lcprobe.config import parse
from lcprobe.errors import ConfigError
from lcprobe.files import write_json
from lcprobe.models.checkpoints.known import CheckpointFacts
from lcprobe.models.extend.config import ExtendConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import plain
from lcprobe.studies.evaluation.prompts import templates_of
from lcprobe.studies.evaluation.session import open_session, probe_session
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.study_facts import facts_of
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import variants_of
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, NO_TEMPLATE
from lcprobe.tasks.text.tokenizer import load_tokenizer
from lcprobe.tracking import NoTracker
from lcprobe.training.checkpoint import Progress, save_checkpoint
from tests.tasks.text.chat import chat

LLAMA = chat("llama", load_tokenizer())
BASE = ProbeTarget("base", TrainedCheckpoint(Path("none"), None), parse({}))
TUNED = replace(BASE, name="tuned", template=LLAMA)


class Published(TrainedCheckpoint):
    """A published model that has a chat template and was not trained to follow it."""

    published = CheckpointFacts(chat=False)


def test_auto_is_the_models_own_template_where_it_follows_one():
    assert templates_of(BASE, ["auto"]) == ([NO_TEMPLATE], [])
    assert templates_of(TUNED, ["auto"]) == ([LLAMA], [])
    unused = replace(TUNED, source=Published(Path("none"), None))
    assert templates_of(unused, ["auto", "chat"]) == ([NO_TEMPLATE, LLAMA], [])
    assert templates_of(TUNED, ["none", "auto", "rwkv", "chat"])[0] == [NO_TEMPLATE, LLAMA, NAMED_TEMPLATES["rwkv"]]


def test_paper_is_the_template_of_the_papers_scripts():
    """Sheared-LLaMA got an instruction, tuned or not; a tuned RecurrentGemma got nothing; others are not in it."""

    def of(**facts):
        class InPaper(TrainedCheckpoint):
            published = CheckpointFacts(**facts)

        return templates_of(replace(TUNED, source=InPaper(Path("none"), None)), ["paper", "auto"])[0]

    assert of(paper="SL", paper_template="instruction", chat=False) == [NAMED_TEMPLATES["instruction"], NO_TEMPLATE]
    assert of(paper="RG-IT", chat=True) == [NO_TEMPLATE, LLAMA]
    assert of(paper="Mamba2", chat=False) == [NO_TEMPLATE]
    assert templates_of(BASE, ["paper"]) == ([NO_TEMPLATE], [])


def test_chat_is_left_out_where_there_is_none():
    assert templates_of(BASE, ["none", "chat"]) == ([NO_TEMPLATE], ["template chat on base: it has none of its own"])
    with pytest.raises(
        ConfigError, match=r"^probe.templates: given \['chat'\]; allowed: .*base has no chat template"
    ):
        templates_of(BASE, ["chat"])
    with pytest.raises(ConfigError, match=r"^probe.templates: given 'chta'; .*chat"):
        parse({"probe": {"templates": ["chta"]}})


@pytest.fixture(scope="module")
def session_of(data_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    config = parse({
        "model": {"layout": "mamba2", "d_model": 16, "mixers": {"mamba2": {"head_dim": 8, "d_state": 8}}},
        "train": {"context_length": 64, "tokens": 1024, "batch_tokens": 64}, "data": data_settings,
        "probe": {
            "tasks": {"line": {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}},
            "grids": [{"lengths": ["160t"], "depths": 2, "n": 3, "haystack": ["noise"]}],
        },
    })  # fmt: skip
    config = replace(config, model=replace(config.model, vocab_size=4096, context_length=64))
    model = LanguageModel(config.model).initialise(0)
    path = save_checkpoint(folder, Progress(step=1), model, torch.optim.AdamW(model.parameters()), "", 1)
    made = ProbeTarget("tuned", TrainedCheckpoint(path, None), config, LLAMA)

    def of(**probe):
        settings = parse({**plain(config), "probe": {**plain(config.probe), **probe}})
        return open_session([made], settings, folder / "out")

    return of


def test_each_template_is_a_variant_with_the_same_samples(session_of, tmp_path):
    session = session_of(templates=["none", "chat", "rwkv"])
    assert [v.name for v in session.variants] == ["tuned@none", "tuned@chat", "tuned@rwkv"]
    assert len({reader.data.tokenizer.identity for reader in session.readers.values()}) == 1
    probed = probe_session(session)
    table = probed.records.to_pandas()
    assert dict(zip(table["model"], table["template"], strict=True)) == {
        "tuned@none": "none", "tuned@chat": "chat", "tuned@rwkv": "rwkv",
    }  # fmt: skip
    assert (table["episode_tokens"] == 160).all()
    of = {name: group.reset_index(drop=True) for name, group in table.groupby("model")}
    bare = of["tuned@none"]
    for name in ("tuned@chat", "tuned@rwkv"):
        for column in ("index", "depth", "answer", "chance", "drawn_depth"):
            assert (of[name][column] == bare[column]).all()
        assert (of[name]["episode"] != bare["episode"]).all()
    assert (of["tuned@chat"]["log_likelihood"] != bare["log_likelihood"]).all()
    facts = facts_of(session, probed.biases, probed.engine_notes)
    named = [(run.name, run.base, run.template) for run in facts.runs]
    assert named == [(f"tuned@{name}", f"tuned@{name}", name) for name in ("none", "chat", "rwkv")]
    html = write_report(facts, probed.records, tmp_path, NoTracker(), probed.context).html.read_text()
    assert "none: tuned@none; chat: tuned@chat; rwkv: tuned@rwkv" in html


def test_one_template_leaves_the_name_and_none_the_records_as_they_are(session_of):
    alone = session_of(templates=["auto"])
    assert [(v.name, v.template) for v in alone.variants] == [("tuned", LLAMA)]
    bare = session_of(templates=["none"])
    assert [(v.name, v.template) for v in bare.variants] == [("tuned", NO_TEMPLATE)]
    (unit,) = bare.plan.units
    assert "template" not in bare.tasks.facts(unit)
    assert alone.tasks.facts(unit)["template"] == [LLAMA.before, LLAMA.between]


def test_methods_are_compared_under_the_same_template(tmp_path):
    write_json(tmp_path / "state.json", asdict(Progress(step=1)))
    sizes = {
        "d_model": 16,
        "d_ff": 16,
        "vocab_size": 64,
        "mixers": {"attention": {"head_dim": 8}},
        "positional": "rope",
    }
    config = parse({"model": sizes, "train": {"tokens": 8192, "batch_tokens": 512, "context_length": 64}})
    target = ProbeTarget("run", TrainedCheckpoint(tmp_path, None), config, LLAMA)
    pe: ExtendConfig = parse({"pe": {"extend": "yarn", "factor": 2}}).pe
    found = variants_of([target], pe, templates=["none", "chat"])[0]
    assert [(v.name, v.base) for v in found] == [
        ("run@none", "run@none"), ("run+yarn@none", "run@none"), ("run@chat", "run@chat"), ("run+yarn@chat", "run@chat"),
    ]  # fmt: skip


def test_the_same_text_has_no_templates(session_of):
    with pytest.raises(ConfigError, match=r"^probe.templates: given \['chat'\]; allowed: \[none\] with probe.equal"):
        session_of(templates=["none", "chat"], equal_length="text")
