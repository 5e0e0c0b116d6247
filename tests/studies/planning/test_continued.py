"""Plans of continued training: what train.extend extends, where it applies, and what is refused."""

import pytest
import yaml

from lcprobe.config import parse, to_yaml
from lcprobe.errors import ConfigError
from lcprobe.schema import plain
from lcprobe.studies.planning.continued import with_extension
from tests.studies.planning.test_plan import plan

ATTENTION = {"attn": {"model": {"layout": "attention+mlp x 2", "positional": "rope"}}}
ARCH = ATTENTION | {
    "hybrid": {"model": {"layout": "attention+mlp, mamba2"}},
    "mamba2": {"model": {"layout": "mamba2 x 2"}},
}


def level(length, source=None, extend=None, **train):
    settings = {"context_length": length, **train, **({} if source is None else {"from": source})}
    return {"train": {**settings, **({} if extend is None else {"extend": extend})}}


BASE = {"L64": level(64)}


def extension(run):
    return plain(run.config.train.extend)


def by_name(result):
    return {run.name: run for run in result.runs}


def test_one_axis_of_lengths_serves_all_architectures():
    result = plan({"length": BASE | {"L256": level(256, "L64", "yarn")}, "arch": ARCH})
    runs = by_name(result)
    wanted = {"type": "yarn", "factor": 4.0, "original_length": 64}
    assert extension(runs["L256-attn"]) == extension(runs["L256-hybrid"]) == wanted
    assert extension(runs["L256-mamba2"]) is extension(runs["L64-attn"]) is None
    assert {name: run.config.train.from_ for name, run in runs.items() if name.startswith("L256")} == {
        f"L256-{arch}": f"runs/tiny/L64-{arch}" for arch in ARCH
    }
    assert result.notes == ("L256-mamba2: train.extend does not apply: no attention",)
    assert [run.config.study.architecture for run in result.runs] == [*ARCH, *ARCH]
    assert runs["L256-attn"].config.model.context_length == 64, "encodings are those of the source"


def test_a_runs_own_config_gives_the_same_run_again(tmp_path):
    run = plan({"length": BASE | {"b": level(256, "L64", {"type": "yarn", "ramp": "rotations"})}, "arch": ATTENTION})
    config = run.runs[-1].config
    again = parse(yaml.safe_load(to_yaml(config)))
    source = run.runs[0].config
    assert plain(with_extension(again, source)) == plain(config)
    with pytest.raises(ConfigError, match=r"train\.extend\.original_length: given 64; allowed: 128"):
        other = parse(plain(source) | {"train": {**plain(source.train), "context_length": 128}})
        with_extension(again, other)


def test_a_chain_counts_from_the_length_of_its_first_run():
    """The extension replaces that of the source; at one length, it can be kept or changed."""
    length = {
        "c": level(256, "b", "pi"), "b": level(128, "L64", "yarn"), **BASE, "d": level(256, "c", {"type": "yarn"}),
    }  # fmt: skip
    runs = by_name(plan({"length": length, "arch": ATTENTION}))
    assert extension(runs["b-attn"]) == {"type": "yarn", "factor": 2.0, "original_length": 64}
    assert extension(runs["c-attn"]) == {"type": "pi", "factor": 4.0, "original_length": 64}
    assert extension(runs["d-attn"]) == {"type": "yarn", "factor": 4.0, "original_length": 64}
    assert {run.config.model.context_length for run in runs.values()} == {64}
    with pytest.raises(ConfigError, match=r"^grid \(c, attn\): train.extend: given None; allowed: a method: b was"):
        plan({"length": BASE | {"b": level(128, "L64", "yarn"), "c": level(256, "b")}, "arch": ATTENTION})


def test_a_factor_of_its_own_reaches_the_training_length():
    """It counts from the first run's length, may be larger, and a ratio that has no end may be cut short."""
    for length, factor in ((256, 4), (256, 8), (64, 2), (100, 1.5625), (86, 1.3437)):
        runs = plan({"length": BASE | {"b": level(length, "L64", {"type": "yarn", "factor": factor}, batch_tokens=length)}, "arch": ATTENTION}).runs  # fmt: skip
        assert extension(runs[-1]) == {"type": "yarn", "factor": factor, "original_length": 64}
    chain = BASE | {"b": level(128, "L64", "yarn"), "c": level(256, "b", {"type": "yarn", "factor": 2})}
    with pytest.raises(ConfigError, match=r"^grid \(c, attn\): train.extend.factor: given 2.0; allowed: >= 4 "):
        plan({"length": chain, "arch": ATTENTION})


def test_the_source_may_be_a_folder(tmp_path):
    source = plan({"length": BASE | {"b": level(128, "L64", "ntk")}, "arch": ATTENTION}).runs
    config = plan({"length": BASE, "arch": ATTENTION}).runs[0].config
    for run in source:
        folder = tmp_path / run.name
        folder.mkdir()
        (folder / "config.yaml").write_text(to_yaml(run.config))
        train = {
            **plain(config.train),
            "context_length": 512,
            "batch_tokens": 512,
            "from": str(folder),
            "extend": "yarn",
        }
        model = {**plain(config.model), "context_length": None}
        found = with_extension(parse(plain(config) | {"train": train, "model": model}), None)
        assert plain(found.train.extend) == {"type": "yarn", "factor": 8.0, "original_length": 64}
        assert found.model.context_length == 64


def test_equal_runs_without_attention_are_one_and_others_are_set_apart():
    """With and without an extension is one run for Mamba2; the two runs of one length do not share an architecture."""
    length = BASE | {"plain": level(256, "L64"), "yarn": level(256, "L64", "yarn")}
    result = plan({"length": length, "arch": ARCH})
    assert [run.name for run in result.runs if "mamba2" in run.name] == ["L64-mamba2", "plain-mamba2"]
    assert "plain-mamba2: plain, yarn give the same run" in result.notes
    assert {run.name: run.config.study.architecture for run in result.runs if "attn" in run.name} == {
        "L64-attn": "attn", "plain-attn": "plain-attn", "yarn-attn": "yarn-attn",
    }  # fmt: skip
    scratch = plan({"length": BASE | {"L256": level(256), "yarn": level(256, "L64", "yarn")}, "arch": ATTENTION})
    assert [run.config.study.architecture for run in scratch.runs] == ["attn", "attn", "yarn-attn"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (level(256, None, "yarn"), "train.extend: given {'type': 'yarn'}; allowed: null without train.from"),
        (level(64, "L64", "yarn"), "train.context_length: given 64; allowed: > 64, the training length"),
        (level(32, "L64", "yarn"), "train.context_length: given 32; allowed: > 64"),
        (level(256, "L64", {"type": "yarn", "factor": 1}), "train.extend.factor: given 1; allowed: > 1"),
        (
            level(256, "L64", {"type": "yarn", "factor": 3.9}),
            "train.extend.factor: given 3.9; allowed: >= 4 (train.context_length 256 / 64)",
        ),
        (level(256, "L64", {"type": "yarn", "factor": "auto"}), "train.extend.factor: given 'auto'"),
        (level(256, "L64", {"type": "yarn", "ramps": 1}), "train.extend.ramps: an unknown key"),
        (level(256, "L64", {"type": "yarn", "original_length": 32}), "train.extend.original_length: given 32"),
        (level(256, "L64", "yarm"), "train.extend.type: given 'yarm'"),
        (level(256, "L64", ["yarn"]), "train.extend: given ['yarn']; allowed: a method's name"),
        (level(256, "L64", "longrope"), "train.extend: given 'longrope'; allowed: drop | llama3"),
        (level(256, "L64", "yarn", switch={"at": 0.5}), "train.switch: given {"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(changed, message):
    with pytest.raises(ConfigError) as caught:
        plan({"length": BASE | {"b": changed}, "arch": ATTENTION})
    assert str(caught.value).startswith(f"grid (b, attn): {message}")


def test_what_is_removed_from_a_model_without_attention_is_checked_too():
    with pytest.raises(ConfigError, match=r"^grid \(b, mamba2\): train.extend: given 'dt_scale'"):
        plan({"length": BASE | {"b": level(256, "L64", "dt_scale")}, "arch": {"mamba2": ARCH["mamba2"]}})
    nothing = plan({"length": BASE | {"b": level(256, "L64", "none")}, "arch": ARCH})
    assert all(run.config.train.extend is None for run in nothing.runs)


@pytest.mark.parametrize(
    ("positional", "extend", "message"),
    [
        (
            "none",
            "yarn",
            "grid (b, x): train.extend: given 'YaRN'; allowed: a method for this model: it has no rotary",
        ),
        ("learned", None, "grid (b, x): train.from: given 'L64-x, with positional.rows of 64x16, here 256x16'"),
        (
            {"type": "learned", "max_length": 128},
            None,
            "grid (b, x): model.positional.max_length: given 128; allowed: >= the training length 256",
        ),
    ],
)
def test_encodings_that_cannot_go_further_are_refused(positional, extend, message):
    """No rotary layer to extend, and tables of positions, too short or of another size."""
    arch = {"x": {"model": {"layout": "attention+mlp", "positional": positional}}}
    with pytest.raises(ConfigError) as caught:
        plan({"length": BASE | {"b": level(256, "L64", extend)}, "arch": arch})
    assert str(caught.value).startswith(message)
