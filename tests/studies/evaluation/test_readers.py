"""Several tokenizers in one session: what does not fit one of them is one line, before anything is prepared; and a
study of two tokenizers from end to end, each in its own tokens and both over the same text.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from lcprobe import load_study
from lcprobe.analysis.findings.tokenizers import NOT_PAIRED, several_tokenizers
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.config import parse
from lcprobe.data.make_tokenizer import train_tokenizer
from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import EpisodeError
from lcprobe.records import SCHEMA
from lcprobe.studies.evaluation.readers import check_readers_fit
from lcprobe.studies.evaluation.report_inputs import load_inputs
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import Variant
from tests.tiny import write_config
from validation.tokenizers import unigram

FACTORS = ("task", "haystack", "key_format", "value_format", "control", "length", "depth", "index", "query")


@pytest.fixture(scope="module")
def small_json() -> str:
    """A vocabulary of 600: about 1.7 times the tokens of the shipped one."""
    return train_tokenizer([text for i, text in enumerate(speeches()) if i % 12 == 0], 600)


def check(files, equal_length="tokens", **grid):
    """Check a grid of one task against models of these tokenizers, trained at 64 tokens."""
    task = {"type": "niah", "n_keys": 3, "template": "line", "digits": 2}
    grid = {"depths": 1, "n": 2, **grid}
    config = parse({"probe": {"tasks": {"line": task}, "grids": [grid], "equal_length": equal_length}})
    settings = [parse({"data": {"tokenizer": str(file)}, "train": {"context_length": 64}}) for file in files]
    source = TrainedCheckpoint(Path("none"), None)
    variants = [Variant(ProbeTarget(f"run{i}", source, own), None) for i, own in enumerate(settings)]
    return check_readers_fit(variants, config, [64])


def test_a_length_in_tokens_below_the_least_at_one_tokenizer_is_one_line_that_names_it(small_json, tmp_path):
    small = tmp_path / "s.json"
    small.write_text(small_json)
    lengths = ["40t", "64t"]
    check(["shipped"], lengths=lengths)
    message = r"^probe.grids\[0\].lengths: given '40t for line corpus/words/numbers'; allowed: at least \d+t"
    with pytest.raises(EpisodeError, match=message + r" \(data.tokenizer is .*s.json\)$"):
        check(["shipped", small], lengths=lengths)
    check(["shipped", small], "text", lengths=lengths)  # they count tokens of the first
    with pytest.raises(EpisodeError, match=message + r" \(data.tokenizer is .*s.json\)$"):
        check([small, "shipped"], "text", lengths=lengths)
    check(["shipped", small], lengths=[0.5, 1])  # multiples are left out with a note


@pytest.mark.slow
def test_a_text_that_one_tokenizer_cannot_have_is_one_line_that_names_it(tmp_path):
    file = tmp_path / "uni.json"
    file.write_text(unigram().json_text)
    with pytest.raises(EpisodeError, match=r"^probe.equal_length: given 'text'; allowed: tokens, .* with .*uni.json"):
        check(["shipped", file], "text", lengths=["300t"], haystack=["python"])


@pytest.fixture(scope="module")
def two_tokenizers(tmp_path_factory, data_settings, small_json):
    """The tiny study with one architecture and two tokenizers, trained."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "small.json").write_text(small_json)
    grid = {"tok": {"shipped": {}, "small": {"data": {"tokenizer": str(folder / "small.json")}}}}
    config = write_config(
        folder,
        data_settings,
        grid=grid,
        model={"layout": "mamba2 x 2"},
        match={"budget": "shipped", "allow_mismatch": True},
    )
    assert train_main([str(config)]) == 0
    return folder / "runs" / "tiny"


def evaluated(study, *settings) -> pa.Table:
    """Probe a study; the records that its report is about."""
    assert evaluate_main([str(study), *settings]) == 0
    report = max(
        study.rglob("report.html"), key=lambda path: path.stat().st_mtime
    ).parent  # each question has its own
    table = load_inputs(report).records(report)
    assert table.schema == SCHEMA
    return table


def by_model(records: pa.Table, column: str) -> dict[str, dict[tuple, Any]]:
    """A column by model and factors."""
    made: dict[str, dict[tuple, Any]] = {}
    for row in records.to_pylist():
        made.setdefault(row["model"], {})[tuple(row[name] for name in FACTORS)] = row[column]
    return made


@pytest.mark.slow
def test_models_are_sized_for_their_own_vocabulary(two_tokenizers):
    sizes = {
        name: yaml.safe_load((two_tokenizers / name / "config.yaml").read_text())["model"]["vocab_size"]
        for name in ("shipped", "small")
    }
    assert sizes == {"shipped": 4096, "small": 600}


@pytest.mark.slow
def test_the_same_text_is_proven_by_digest_and_its_tokens_are_counted(two_tokenizers):
    records = evaluated(two_tokenizers, "probe.equal_length=text")
    assert set(records["equal_length"].to_pylist()) == {"text"}
    for column in ("text", "characters", "haystack_start", "answer", "chance", "realised_depth", "hops"):
        models = by_model(records, column)
        assert models["shipped"] == models["small"], column
    tokens = by_model(records, "episode_tokens")
    for factors, n in tokens["shipped"].items():
        own = tokens["small"][factors]
        assert (n == factors[FACTORS.index("length")] and own > n) or ("query_only" in factors and own >= n)
    assert len(set(by_model(records, "tokenizer")["small"].values())) == 1
    assert by_model(records, "tokenizer")["small"] != by_model(records, "tokenizer")["shipped"]


@pytest.mark.slow
def test_with_tokens_every_model_reads_as_many_of_its_own(two_tokenizers):
    records = evaluated(two_tokenizers, "probe.equal_length=tokens")
    for model, tokens in by_model(records, "episode_tokens").items():
        for factors, n in tokens.items():
            assert n == factors[FACTORS.index("length")] or "query_only" in factors, model
    texts = by_model(records, "text")
    assert texts["shipped"].keys() == texts["small"].keys(), "every cell exists for both"
    assert texts["shipped"] != texts["small"]


@pytest.mark.slow
def test_a_length_that_does_not_fit_one_tokenizer_is_refused_before_anything_is_prepared(two_tokenizers, capsys):
    before = sorted(two_tokenizers.rglob("*"))
    capsys.readouterr()
    grids = "probe.grids=[{lengths: [40t], depths: 1, n: 2}]"
    assert evaluate_main([str(two_tokenizers), grids]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "probe.grids[0].lengths: given '40t for " in error
    assert "small.json)" in error
    assert sorted(two_tokenizers.rglob("*")) == before


@pytest.mark.slow
def test_one_vocabulary_with_two_bos_tokens_is_two_tokenizers(tmp_path, data_settings):
    """In the records and in the report: their episodes of equal length are not the same, and are not paired."""
    grid = {"tok": {"usual": {}, "own": {"data": {"bos": "!"}}}}
    config = write_config(
        tmp_path, data_settings, grid=grid, model={"layout": "mamba2 x 2"}, match={"budget": "usual"}
    )
    assert train_main([str(config)]) == 0
    study = tmp_path / "runs" / "tiny"
    records = evaluated(study)
    assert [len({*values.values()}) for values in by_model(records, "tokenizer").values()] == [1, 1]
    facts = load_inputs(study).study
    assert [run.name for run in facts.runs] == ["usual", "own"]
    assert {run.tokenizer for run in facts.runs} == {*records["tokenizer"].to_pylist()}
    assert several_tokenizers(facts)
    assert {c.refused for c in load_study(study).results.of("model", "model cell")} == {NOT_PAIRED}
