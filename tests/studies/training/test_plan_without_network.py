"""`--plan`, and the report of kernels, ask no network: well-known vocabularies are known, others are asked for in one line."""

import pytest

from lcprobe.config import load
from lcprobe.errors import ConfigError
from lcprobe.studies.training.kernel_report import print_kernels
from lcprobe.studies.training.train_study import checked_plan
from tests.tiny import write_config


def plan_of(tmp_path, data_settings, *settings):
    return checked_plan(load([str(write_config(tmp_path, data_settings))], [*settings]), fetch=False)


def test_a_well_known_tokenizer_is_planned(tmp_path, data_settings):
    plan = plan_of(tmp_path, data_settings, "data.tokenizer=EleutherAI/gpt-neox-20b")
    assert {run.config.model.vocab_size for run in plan.runs} == {50277}
    assert {run.config.data.tokenizer for run in plan.runs} == {"EleutherAI/gpt-neox-20b"}
    (note,) = [note for note in plan.notes if "is not here" in note]
    assert "a vocabulary of 50,277, lengths counted with the shipped tokenizer" in note


def test_another_one_needs_its_size(tmp_path, data_settings):
    with pytest.raises(ConfigError, match=r"data\.tokenizer: given 'some/one'; allowed: .*model\.vocab_size=\.\.\."):
        plan_of(tmp_path, data_settings, "data.tokenizer=some/one")
    plan = plan_of(tmp_path, data_settings, "data.tokenizer=some/one", "model.vocab_size=777")
    assert {run.config.model.vocab_size for run in plan.runs} == {777}


def test_kernels_of_a_well_known_tokenizer_are_reported(tmp_path, data_settings, capsys):
    settings = ["data.tokenizer=EleutherAI/gpt-neox-20b"]
    print_kernels(load([str(write_config(tmp_path, data_settings))], settings), "sm_90", None)
    lines = capsys.readouterr().out
    assert "ssd" in lines
    assert "attention" in lines


def test_too_few_rows_for_a_known_one_are_refused(tmp_path, data_settings):
    with pytest.raises(ConfigError, match=r"model\.vocab_size: given 100; allowed: >= the tokenizer's 50257"):
        plan_of(tmp_path, data_settings, "data.tokenizer=gpt2", "model.vocab_size=100")


def test_training_fetches_it_or_says_why_not(tmp_path, data_settings):
    mapping = load([str(write_config(tmp_path, data_settings))], ["data.tokenizer=gpt2"])
    with pytest.raises(ConfigError, match="a name on the hub when online .HF_HUB_OFFLINE is set"):
        checked_plan(mapping)
