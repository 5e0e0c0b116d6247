"""Published checkpoints are probed as own runs are: by folder or address, on our mixers or by transformers."""

import json
import shutil
from importlib import resources

import pytest
import torch

from lcprobe.cli.commands import evaluate_main
from lcprobe.errors import LcprobeError
from lcprobe.files import read_json
from lcprobe.models.checkpoints.known import known
from lcprobe.probing.config import PublishedModel, ServerConfig
from lcprobe.studies.evaluation.published import published_model
from lcprobe.studies.evaluation.targets import find_targets
from validation.servers import Faults, stand_in

SIZES = {"vocab_size": 4096, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128, "pad_token_id": None}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder as transformers writes it, with the shipped tokenizer."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("published") / "tiny-llama"
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(folder)
    with resources.as_file(resources.files("lcprobe.tasks") / "assets" / "bpe4k.json") as file:
        shutil.copy(file, folder / "tokenizer.json")
    return folder


def test_a_folder_is_probed_by_both_engines_with_the_same_scores(llama, tmp_path, monkeypatch, capsys):
    """Records of lcprobe's mixers and of transformers on the same weights agree; the report names engine and source of
    the training length."""
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    models = [str(llama), {"address": str(llama), "name": "by-transformers", "engine": "transformers"}]
    config = {
        "study": {"name": "both", "models": models},
        "probe": {"tasks": {"single": {"type": "niah", "n_keys": 2, "template": "line"}},
                  "grids": [{"lengths": [0.5, 1], "depths": 2, "haystack": ["noise"], "n": 3}]},
        "track": {"wandb": "off"},
    }  # fmt: skip
    (tmp_path / "both.yaml").write_text(json.dumps(config))
    assert evaluate_main(["both.yaml"]) == 0
    rows = pq.read_table(tmp_path / "runs/both/records").to_pylist()
    ours, theirs = ([r for r in rows if r["engine"] == engine] for engine in ("native", "transformers"))
    assert len(ours) == len(theirs) == 12
    assert {r["model"] for r in ours} == {"tiny-llama"}
    for a, b in zip(
        *(sorted(part, key=lambda r: (r["length"], r["depth"], r["index"])) for part in (ours, theirs)), strict=True
    ):
        assert (a["episode"], a["exact"], a["prediction"]) == (b["episode"], b["exact"], b["prediction"])
        assert a["log_likelihood"] == pytest.approx(b["log_likelihood"], abs=1e-4)
    facts = (tmp_path / "runs/both/report.json").read_text()
    assert "max_position_embeddings of config.json" in facts
    capsys.readouterr()


def test_settings_go_before_what_is_known_and_that_before_config_json(llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    assert find_targets([folder])[0].config.train.context_length == 128
    (folder / "lcprobe.yaml").write_text("{context_length: 64, context_length_from: a card, bos: none}")
    target = find_targets([folder])[0]
    assert (target.config.train.context_length, target.config.data.bos, target.name) == (64, "none", "model")
    given = PublishedModel(str(folder), name="mine", context_length=32)
    name, source, config = published_model(given, ServerConfig())
    assert (name, config.train.context_length, source.published.context_length_from) == (
        "mine",
        32,
        "the configuration",
    )


def test_a_chat_template_beside_the_weights_is_the_models_own(llama, tmp_path):
    folder = tmp_path / "chat"
    shutil.copytree(llama, folder)
    assert find_targets([folder])[0].template is None
    text = "{{ bos_token }}[INST] {{ messages[0].content }} [/INST]"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": text, "bos_token": "<|bos|>"}))
    template = find_targets([folder])[0].template
    assert template is not None
    assert (template.name, template.before, template.between) == ("chat", "<|bos|>[INST] ", " [/INST]")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: (d / "lcprobe.yaml").write_text("{context_length: 64}"), "where context_length comes from"),
        (lambda d: (d / "lcprobe.yaml").write_text("{bos: [}"), "lcprobe.yaml"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer: given 'none in"),
        (lambda d: _set(d, num_key_value_heads=3), "model: "),
        (lambda d: _set(d, max_position_embeddings=None), "training length: given 'not known'"),
        (lambda d: _set(d, model_type="unheard_of"), "unheard_of"),
    ],
)
def test_what_is_wrong_is_one_line(llama, tmp_path, change, words, capsys):
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    change(folder)
    assert evaluate_main([str(folder), "probe.tasks={s: {type: niah}}", "probe.grids=[{lengths: [128t], n: 1}]"]) in (
        2,
        5,
    )
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def _set(folder, **keys):
    path = folder / "config.json"
    written = {**read_json(path), **keys}
    path.write_text(json.dumps({k: v for k, v in written.items() if v is not None}))


def test_an_address_that_is_none_is_refused():
    for address in ("hf:", "hf:a/b/c", "hf:a/b@", "nowhere"):
        with pytest.raises(LcprobeError, match="allowed"):
            published_model(PublishedModel(address), ServerConfig())


def test_a_hub_name_without_network_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert (
        evaluate_main(
            ["hf:state-spaces/mamba2-2.7b", "probe.tasks={s: {type: niah}}", "probe.grids=[{lengths: [128t], n: 1}]"]
        )
        == 5
    )
    assert capsys.readouterr().err.startswith("error: hf:state-spaces/mamba2-2.7b@")


def test_both_training_lengths_of_the_mamba2_family_are_kept():
    facts = known()["state-spaces/mamba2-2.7b"]
    assert (facts.context_length, *facts.other_context_lengths.values()) == (2048, 8192)
    assert all(one.context_length_from for one in known().values() if one.context_length)


GRID = ["probe.tasks={single: {type: niah, n_keys: 2, template: line}}", "track.wandb=off",
        "probe.grids=[{lengths: [64t, 96t], depths: 2, haystack: [noise], n: 3}]"]  # fmt: skip


@pytest.fixture(scope="module")
def served(llama):
    """The tiny model in this process, as the stand-in server has it."""
    from lcprobe.models.checkpoints.load import load_published, recognised
    from lcprobe.tasks.text.tokenizer import load_tokenizer

    return load_published(recognised(llama)), load_tokenizer(str(llama))


@pytest.mark.parametrize("kind", ["vllm", pytest.param("openai", marks=pytest.mark.slow)])
def test_a_server_passes_the_parity_gate_and_scores_as_its_reference(
    served, llama, tmp_path, monkeypatch, capsys, kind
):
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    with stand_in(*served, kind) as server:
        words = [f"{kind}:{server.address}", str(llama), "study.name=both", f"probe.server.reference={llama}", *GRID]
        assert evaluate_main([*words, "probe.server.samples=4"]) == 0
    output = capsys.readouterr().out
    assert f"{kind}-server: parity with {llama}: max |dlogprob|" in output
    rows = pq.read_table(tmp_path / "runs/both/records").to_pylist()
    theirs, ours = ([r for r in rows if r["engine"] == engine] for engine in (kind, "native"))
    assert len(ours) == len(theirs) == 12
    key = ("length", "depth", "index", "exact", "rank", *(["prediction"] if kind == "vllm" else []))
    assert sorted([r[name] for name in key] for r in ours) == sorted([r[name] for name in key] for r in theirs)


def test_a_server_of_other_weights_is_refused_and_one_that_dies_loses_nothing(
    served, llama, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = [f"probe.server.reference={llama}", "probe.server.backoff_s=0", "probe.server.retries=1", *GRID]
    with stand_in(*served, "vllm", Faults(noise=0.2)) as server:
        assert evaluate_main([f"vllm:{server.address}", *words]) == 2
    assert "max |dlogprob| 0.2" in capsys.readouterr().err
    address = None
    with stand_in(*served, "vllm", Faults(dies_after=4)) as server:
        address = server.address
        assert evaluate_main([f"vllm:{address}", *words, "probe.server.samples=4", "probe.batch_tokens=64"]) == 74
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert address in error
    assert list((tmp_path / "runs/vllm-server/records").iterdir()), "finished questions are kept"


def test_other_settings_of_the_same_weights_are_another_model(llama, tmp_path):
    """config.json and settings are part of a model's identity: records of one are never read for the other."""
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    before = find_targets([folder])[0].source.digest
    assert find_targets([llama])[0].source.digest == before
    _set(folder, rms_norm_eps=0.5)
    assert find_targets([folder])[0].source.digest != before


def test_the_plan_says_what_it_does_not_know_of_other_engines(llama, tmp_path, monkeypatch, capsys):
    """transformers: about the keys and values that our mixers have; a server: read for every candidate, no memory."""
    monkeypatch.chdir(tmp_path)
    models = [{"address": str(llama), "name": name, "engine": name} for name in ("native", "transformers")]
    study = {"name": "plan", "models": [*models, "vllm:http://127.0.0.1:9"], "plan_for": "h100"}
    grid = {"lengths": ["64t", "128t"], "depths": 2, "haystack": ["noise"], "n": 3}
    probe = {"tasks": {"single": {"type": "niah", "n_keys": 2, "template": "line"}}, "grids": [grid]}
    config = {"study": study, "probe": {**probe, "server": {"reference": str(llama)}}, "track": {"wandb": "off"}}
    (tmp_path / "plan.yaml").write_text(json.dumps(config))
    tables = []
    monkeypatch.setattr("lcprobe.studies.evaluation.costs.tables.print_rows", lambda rows, title: tables.append(rows))
    assert evaluate_main(["plan.yaml", "--plan", "--full"]) == 0
    native, transformers, served, _ = tables[0]
    assert {row["length"] for row in tables[0][:3]} == {128}
    assert transformers["parameters"] == native["parameters"] == served["parameters"]
    assert transformers["PFLOPs"] == pytest.approx(native["PFLOPs"], rel=0.05)
    assert (transformers["states GB"], transformers["GPUs"]) == (native["states GB"], 1)
    assert (served["states GB"], served["GPUs"], served["weights GB"]) == ("", "", "")
    assert served["read"] % served["prompt tokens"] == 0
    assert served["read"] >= 2 * native["read"], "two candidates"
    assert served["PFLOPs"] > native["PFLOPs"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "an estimate without other states and activations: transformers" in printed
    assert "whole for every candidate" in printed
