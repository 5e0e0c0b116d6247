"""Variants: methods apply to a model as it is at its checkpoint, and lengths that a model cannot read are left
out."""

import csv
from dataclasses import asdict

import pytest
import torch

from lcprobe import load_study
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.config import parse
from lcprobe.errors import ConfigError
from lcprobe.files import write_json
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.extend.rotary import YaRN, YaRNConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.engines.split.layers import LayerSplit
from lcprobe.studies.evaluation import variants
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import load_variant, variants_of
from lcprobe.training.checkpoint import Progress, save_checkpoint
from tests.tiny import write_config


def target(folder, before, after, step):
    """A checkpoint with its step alone."""
    write_json(folder / "state.json", asdict(Progress(step=step)))
    config = parse({
        "model": {"d_model": 16, "d_ff": 16, "vocab_size": 64, "mixers": {"attention": {"head_dim": 8}}, "positional": before},
        "train": {"tokens": 8192, "batch_tokens": 512, "context_length": 64, "switch": {"at": 0.5, "positional": after}},
    })  # fmt: skip
    return ProbeTarget("run", TrainedCheckpoint(folder, None), config)


@pytest.mark.parametrize(("before", "after"), [("rope", "none"), ("none", "rope")])
@pytest.mark.parametrize("step", [7, 8, 16])
def test_methods_apply_to_the_encodings_of_the_checkpoints_step(tmp_path, before, after, step):
    pe, given = parse({"pe": {"extend": "yarn", "factor": 2}}).pe, [target(tmp_path, before, after, step)]
    if (before if step < 8 else after) == "rope":
        assert [column.name for column in variants_of(given, pe)[0]] == ["run", "run+yarn"]
    else:
        with pytest.raises(ConfigError, match="it has no rotary layer"):
            variants_of(given, pe)


def test_a_model_trained_with_an_extension_has_it_as_trained(tmp_path):
    """Loaded without any method it is the extended model to the bit; methods for encodings do not apply to it, others
    do."""
    sizes = {"layout": "attention+mlp, mamba2", "d_model": 16, "d_ff": 16, "vocab_size": 64, "context_length": 64}
    sizes["mixers"] = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8}}
    train = {"tokens": 8192, "batch_tokens": 512, "context_length": 256, "from": "source"}
    train["extend"] = {"type": "yarn", "factor": 4, "original_length": 64}
    config = parse({"model": sizes, "train": train})
    model = LanguageModel(config.model).initialise(0)
    checkpoint = save_checkpoint(tmp_path, Progress(step=3), model, torch.optim.AdamW(model.parameters()), "", 1)
    given = [ProbeTarget("continued", TrainedCheckpoint(checkpoint, None), config)]
    loaded, facts = load_variant(variants_of(given, parse({}).pe)[0][0], "cpu")
    ids = torch.randint(0, 64, (2, 200), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights_alone = model.eval().hidden(ids)[0]
        oracle = extended(model, YaRN(YaRNConfig()), ExtensionContext(64, 4.0)).hidden(ids)[0]
        assert torch.equal(loaded.engine.hidden(ids, state=None)[0], oracle)
    assert not torch.equal(oracle, weights_alone)
    assert (facts.name, facts.extension, facts.step) == ("continued", "none", 3)
    methods = parse({"pe": {"extend": ["stuffed", "yarn", "window"], "factor": 2}}).pe
    variants, notes = variants_of([*given, target(tmp_path / "plain", "rope", "rope", 1)], methods)
    assert [variant.name for variant in variants if variant.target is given[0]] == ["continued", "continued+stuffed"]
    assert [note for note in notes if "trained" in note] == [
        f"{name} on continued: it was trained with yarn(factor=4)" for name in ("yarn", "window")
    ]


def test_a_table_of_positions_limits_its_own_variant_only(tmp_path, data_settings, capsys):
    """Probed to twice a learned table's length: the other model has all its cells, and the report names what is
    missing."""
    config = write_config(
        tmp_path, data_settings,
        model={"layout": "attention+mlp", "d_ff": 16}, match={"budget": None, "refuse_above": 0.9},
        grid={"encoding": {name: {"model": {"positional": name}} for name in ("alibi", "learned")}},
        train={"context_length": 64, "tokens": 512, "batch_tokens": 256, "threads": 1},
    )  # fmt: skip
    assert train_main([str(config)]) == 0
    runs = tmp_path / "runs" / "tiny"
    capsys.readouterr()
    ends = "learned reads at most 64 tokens, where its positions end; left out: "
    note = ends + "6 of 28 cells and the longer texts"
    assert evaluate_main([str(runs), "--plan"]) == 0
    assert note in capsys.readouterr().out
    assert evaluate_main([str(runs)]) == 0
    assert f"{note}." in load_study(runs).summary()
    with open(runs / "tables" / "cells.csv", newline="") as file:
        cells = {(c["model"], int(c["length"])) for c in csv.DictReader(file) if int(c["n"])}
    assert cells == {("alibi", 64), ("alibi", 128), ("learned", 64)}
    far = "probe.grids=[{tasks: [single], lengths: [2], depths: 1, n: 2}]"
    asked = [str(runs), far, "probe.context=null", "study.name=far"]
    assert evaluate_main(asked) == 0, "a model that can read nothing is left out"
    assert f"{ends}the whole model, as no cell is that short." in load_study(runs / "reports" / "far").summary()
    assert evaluate_main([str(runs / "learned"), far]) == 2
    assert "the models' maximum length" in capsys.readouterr().err


def test_layers_over_several_devices_give_the_same_and_one_gpu_is_refused(tmp_path, monkeypatch):
    config = parse({
        "model": {"layout": "attention+mlp x 2", "d_model": 16, "d_ff": 16, "vocab_size": 64, "context_length": 64,
                  "mixers": {"attention": {"head_dim": 8}}},
        "train": {"tokens": 8192, "batch_tokens": 512, "context_length": 64},
    })  # fmt: skip
    model = LanguageModel(config.model).initialise(0)
    checkpoint = save_checkpoint(tmp_path, Progress(step=3), model, torch.optim.AdamW(model.parameters()), "", 1)
    (variant,) = variants_of([ProbeTarget("run", TrainedCheckpoint(checkpoint, None), config)], parse({}).pe)[0]
    probe = parse({"probe": {"split": True}}).probe
    if torch.cuda.device_count() < 2:
        with pytest.raises(ConfigError, match=r"probe\.split"):
            load_variant(variant, "cpu", probe=probe)
    monkeypatch.setattr(variants, "split_devices", lambda: ["cpu", "cpu"])
    loaded, _ = load_variant(variant, "cpu", probe=probe)
    ids = torch.randint(0, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, split = (m.hidden(ids, state=m.new_state(2))[0] for m in (model.eval(), loaded.engine))
    assert isinstance(loaded.engine, LayerSplit)
    assert torch.equal(whole, split)
