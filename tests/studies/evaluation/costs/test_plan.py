"""`evaluate.py --plan` before anything is there: no network, no weights, no corpus."""

import pytest
import yaml

from lcprobe.cli.commands import evaluate_main
from lcprobe.config import load
from lcprobe.models.checkpoints.known import known
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import model_cost
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.prefix_sharing import plan_prefill, prefix_batches
from lcprobe.probing.scoring import Item
from lcprobe.schema import build
from lcprobe.studies.evaluation.costs.read_tokens import prompts_of
from tests.tiny import write_config

PARAMETERS = {
    "state-spaces/mamba2-2.7b": 2_702_599_680,
    "state-spaces/mamba2attn-2.7b": 2_697_590_880,
    "state-spaces/transformerpp-2.7b": 2_666_457_600,
    "RWKV/rwkv-6-world-3b-v2.1": 3_099_863_040,
    "princeton-nlp/Sheared-LLaMA-2.7B": 2_701_560_320,
    "princeton-nlp/Sheared-LLaMA-2.7B-ShareGPT": 2_701_560_320,
    "google/recurrentgemma-2b": 2_682_862_080,
    "google/recurrentgemma-2b-it": 2_682_862_080,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_known_shapes_have_the_parameters_of_their_checkpoints(name):
    facts = known()[name]
    assert model_cost(build(ModelConfig, facts.model, name), 4096).params == PARAMETERS[name]
    assert facts.context_length is not None


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("mamba2-2.7b", "state-spaces/mamba2-2.7b"),
        ("hybrid-2.7b", "state-spaces/mamba2attn-2.7b"),
        ("rwkv6-3b", "RWKV/rwkv-6-world-3b-v2.1"),
        ("llama-2.7b", "princeton-nlp/Sheared-LLaMA-2.7B"),
        ("llama-13b", "meta-llama/Llama-2-13b-hf"),
        ("llama-70b", "meta-llama/Llama-2-70b-hf"),
        ("recurrentgemma-2b", "google/recurrentgemma-2b"),
    ],
)
def test_the_shipped_configs_of_published_models_are_their_known_shapes(config, name):
    shipped = load([f"configs/model/{config}.yaml"], [])["model"]
    vocab = {key: known()[name].model[key] for key in ("vocab_size", "vocab_multiple") if key in known()[name].model}
    assert {**vocab, **shipped} == known()[name].model


def test_every_paper_model_can_be_planned():
    papers = {facts.paper for facts in known().values() if facts.model}
    assert papers >= {"Mamba2", "M2A", "TPP", "RWKV", "SL", "SL-IT", "RG", "RG-IT"}


def test_hub_models_are_planned_without_network(tmp_path, capsys):
    grid = {
        "tasks": {"single": {"type": "niah", "n_keys": 1}},
        "grids": [{"lengths": ["512t", "1Kt"], "depths": 2, "n": 3}],
    }
    config = tmp_path / "probe.yaml"
    config.write_text(yaml.safe_dump({"study": {"plan_for": "h100", "folder": str(tmp_path)}, "probe": grid}))
    names = ["hf:state-spaces/mamba2-2.7b", "hf:state-spaces/transformerpp-2.7b"]
    assert evaluate_main([*names, str(config), "study.name=x", "--plan", "--full"]) == 0
    printed = capsys.readouterr().out
    assert "2 models x 4 cells, 12 episodes and 9,216 tokens per model" in printed
    assert "2,702,599,680" in printed
    assert "hours, h100" in printed
    assert "transformerpp-2.7b: d_ff is not recovered" in " ".join(printed.split())
    assert "counted with the shipped tokenizer" in " ".join(printed.split())
    assert list(tmp_path.iterdir()) == [config], "nothing is written"


def test_a_study_is_planned_before_it_is_trained_and_its_corpus_prepared(tmp_path, capsys):
    config = write_config(tmp_path, {"corpus": [str(tmp_path / "none.jsonl")], "folder": str(tmp_path / "data")})
    (tmp_path / "none.jsonl").write_text('{"text": "one two three"}\n')
    assert evaluate_main([str(config), "--plan", "study.plan_for=a100"]) == 0
    printed = capsys.readouterr().out
    assert "2 models x" in printed
    assert "hybrid" in printed
    assert "time, a100" in printed
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "runs").exists()


def test_a_study_whose_tokenizer_is_on_the_hub_is_planned_without_network(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lcprobe.tasks.text.tokenizer.fetch", lambda name: pytest.fail("a plan asks no network"))
    config = str(write_config(tmp_path, {"folder": str(tmp_path / "data")}))
    assert evaluate_main([config, "--plan", "--full", "data.tokenizer=EleutherAI/gpt-neox-20b"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 models x" in printed
    assert "EleutherAI/gpt-neox-20b is not here: a vocabulary of 50,277, lengths counted with the shipped" in printed
    capsys.readouterr()
    assert evaluate_main([config, "--plan", "data.tokenizer=some/one"]) == 2
    error = capsys.readouterr().err
    assert "data.tokenizer: given 'some/one'; allowed: " in error
    assert error.count("\n") == 1


def test_the_share_that_is_read_is_that_of_all_samples(materials):
    tasks = {"multikey": {"type": "niah", "template": "line", "digits": 2, "n_keys": 3}}
    probe = build(ProbeConfig, {"tasks": tasks, "batch_tokens": 4096}, "probe")
    made = TaskSet(probe, materials)
    plan = made.plan(
        [build(Grid, {"lengths": ["512t"], "depths": 4, "n": 12, "value": ["numbers", "words"]}, "grid")]
    )
    (told,) = prompts_of(plan, made, probe)
    prompts = [Item(e, q).prompt for unit in plan.units for e in made.episodes(unit) for q in e.queries]
    read = sum(plan_prefill([prompts[i] for i in batch], 8).tokens for batch in prefix_batches(prompts, 8))
    assert told.n == len(prompts)
    assert told.new == pytest.approx(read / sum(map(len, prompts)), abs=0.15)


def test_a_tuned_model_is_planned_with_and_without_its_chat_template(tmp_path, capsys):
    grid = {
        "templates": ["paper", "auto"],
        "tasks": {"single": {"type": "niah", "n_keys": 1}},
        "grids": [{"lengths": ["512t"], "depths": 1, "n": 1}],
    }
    config = tmp_path / "probe.yaml"
    config.write_text(yaml.safe_dump({"study": {"plan_for": "a100", "folder": str(tmp_path)}, "probe": grid}))
    names = ["hf:google/recurrentgemma-2b", "hf:google/recurrentgemma-2b-it"]
    assert evaluate_main([*names, str(config), "study.name=x", "--plan", "--full"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 variants of 2 models x 1 cell," in printed
    assert "recurrentgemma-2b-it@chat" in printed
    assert "with a chat template of their own (known.yaml), without its tokens: recurrentgemma-2b-it" in printed
    assert "GPU hours" in printed
