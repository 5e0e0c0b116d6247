"""One rule lays settings over each other: files, key=value, levels of a grid, and what evaluate is given."""

import pytest
import yaml

from lcprobe.config import load, parse, read_settings, to_yaml
from lcprobe.errors import ConfigError
from lcprobe.merging import Settings, assign, merge
from lcprobe.studies.evaluation.evaluate_study import (
    _refuse_training,
    _trained_otherwise,
    _with_places,
    _with_settings,
)
from lcprobe.studies.planning.plan import make_plan

SHORT = "configs/quickstart.yaml"
CASES = [  # (below, on top, result)
    ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
    ({"a": {"type": "niah", "n": 1}}, {"a": {"type": "niah"}}, {"a": {"type": "niah"}}),
    ({"a": {"type": "niah", "n": 1}}, {"a": {"n": 2}}, {"a": {"type": "niah", "n": 2}}),
    ({"a": {"type": "niah", "n": 1}}, {"a": "vt"}, {"a": "vt"}),
    ({"a": "vt"}, {"a": {"n": 2}}, {"a": {"n": 2}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({"a": {"x": 1}}, {"a": [3]}, {"a": [3]}),
    ({"a": {"x": 1}}, {"a": None}, {"a": None}),
    ({"a": {"x": 1}, "b": 2}, {"a": "_drop_"}, {"b": 2}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"_replace_": True, "z": 3}}, {"a": {"z": 3}}),
    ({"a": {"x": {"p": 1}}}, {"a": {"x": {"_replace_": True}}}, {"a": {"x": {}}}),
    ({"a": [{"n": 1, "m": 2}, {}]}, {"a": {"0": {"n": 3}}}, {"a": [{"n": 3, "m": 2}, {}]}),
    ({"a": [{"n": 1}, {"n": 2}, {"n": 3}]}, {"a": {"0": "_drop_", "1": {"n": 5}}}, {"a": [{"n": 5}, {"n": 3}]}),
    ({"a": [{"n": 1}, {"n": 2}, {"n": 3}]}, {"a": {"1": {"n": 5}, "0": "_drop_"}}, {"a": [{"n": 5}, {"n": 3}]}),
    ({"a": [1, 2, 3]}, {"a": {"2": "_drop_", "0": "_drop_"}}, {"a": [2]}),
    ({"a": [1, 2]}, {"a": {"00": 5}}, {"a": {"00": 5}}),
    ({"a": [1, 2]}, {"a": {"\u0661": 5}}, {"a": {"\u0661": 5}}),  # a digit, and no place
    ({"a": {"type": "niah", "n": 1}}, {"a": {"type": "_drop_"}}, {"a": {"n": 1}}),
    ({"grid": {"arch": {"p": {}}, "seed": [0]}}, {"grid": {"arch": {"q": {}}}}, {"grid": {"arch": {"q": {}}, "seed": [0]}}),
    (
        {"grid": {"train": {"lr": [1]}}},
        {"grid": {"train": {"tokens": [2]}}},
        {"grid": {"train.lr": [1], "train.tokens": [2]}},
    ),
    ({"grid": {"arch": {"p": {}}, "seed": [0]}}, {"grid": {"seed": None}}, {"grid": {"arch": {"p": {}}}}),
    ({"grid": {"arch": {"p": {}, "q": {}}}}, {"grid": {"arch": {"p": None}}}, {"grid": {"arch": {"q": {}}}}),
    ({"grid": {"train.lr": [1], "seed": [0]}}, {"grid": {"train": {"lr": [2]}}}, {"grid": {"train.lr": [2], "seed": [0]}}),
    ({"grid": {"seed": [0, 1]}}, {"grid": {"_replace_": True, "train.lr": [1]}}, {"grid": {"train.lr": [1]}}),
    ({"grid": {"seed": [0, 1]}}, {"grid": None}, {"grid": {}}),
    (
        {"grid": {"arch": {"p": {}}}},
        {"grid": {"arch": {"q": {"train": {"lr": "_drop_"}}}}},  # for the runs of this level
        {"grid": {"arch": {"q": {"train": {"lr": "_drop_"}}}}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("below", "top", "result"), CASES)
def test_a_mapping_on_top_of_another(below, top, result):
    before = yaml.safe_dump([below, top])
    assert merge(below, top) == result
    assert Settings((("", top),)).on(below) == result
    assert yaml.safe_dump([below, top]) == before, "neither is changed"


@pytest.mark.parametrize(("below", "top", "result"), CASES)
def test_files_and_settings_merge_alike(tmp_path, below, top, result):
    for name, mapping in (("below", below), ("top", top)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(mapping))
    files = load([str(tmp_path / "below.yaml"), str(tmp_path / "top.yaml")], [])
    words = [
        f"{key}={yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...' + chr(10)).strip()}"
        for key, value in top.items()
    ]
    assert files == load([str(tmp_path / "below.yaml")], words) == result


def test_settings_are_laid_on_in_order():
    layers = [("", {"a": "_drop_", "b": {"_replace_": True, "x": 1}}), ("a.y", 2), ("b", {"z": 3})]
    assert Settings(tuple(layers)).on({"a": {"p": 1}, "b": {"q": 1}}) == {"a": {"y": 2}, "b": {"x": 1, "z": 3}}


def test_settings_of_some_sections_and_keys():
    layers = [
        ("", {"study": {"name": "x", "run": "y"}, "probe": {}, "seed": 1}),
        ("study", {"folder": "z"}),
        ("study.run", "w"),
    ]
    settings = Settings((*layers, ("probe.grids[0].n", 3), ("grid.seed", [1])))
    assert settings.keys() == {"study.name", "study.run", "study.folder", "probe", "seed", "probe.grids", "grid.seed"}
    some = settings.of(["study.name", "study.folder", "seed"])
    assert some.on({"study": {"run": "own"}}) == {"study": {"run": "own", "name": "x", "folder": "z"}, "seed": 1}


@pytest.mark.parametrize(
    ("path", "value", "result"),
    [
        ("a[0].n", 3, {"a": [{"n": 3, "m": 2}, {}]}),
        ("a.1", {"n": 4}, {"a": [{"n": 1, "m": 2}, {"n": 4}]}),
        ("a[0]", "_drop_", {"a": [{}]}),
        ("b.c.d", 5, {"a": [{"n": 1, "m": 2}, {}], "b": {"c": {"d": 5}}}),
        ("a", 1, {"a": 1}),
    ],
)
def test_a_value_at_a_path(path, value, result):
    assert assign({"a": [{"n": 1, "m": 2}, {}]}, path, value) == result


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("a[2].n", 1, r"^a\.2: given 'a place that is not there'; allowed: 0 \.\. 1$"),
        ("a.x", 1, r"^a\.x: given 'a place that is not there'"),
        ("a..b", 1, r"^command line: given 'a\.\.b'; allowed: a key such as"),
        ("b", "_drop_", r"^b: given '_drop_'; allowed: a key that is set before"),
        ("b", {"_replace_": 1}, r"^b\._replace_: given 1; allowed: true"),
        ("a[99999999999999999999].n", 1, r"^a\.9+: given 'a place that is not there'"),
        ("a.\u00b2.n", 1, r"^a\.\u00b2: given 'a place that is not there'"),
        ("e[0].n", 1, r"^e\.0: given 'a place that is not there'; allowed: a list with elements"),
    ],
)
def test_what_cannot_be_assigned_is_named(path, value, message):
    with pytest.raises(ConfigError, match=message):
        assign({"a": [{}, {}], "e": []}, path, value)


@pytest.mark.parametrize(
    "words",
    [
        ["probe.tasks.multikey={type: niah}"],
        ["probe.tasks.multikey={digits: 5}"],
        ["probe.grids[0].n=5", "pe.extend=[pi]"],
        ["probe.tasks={_replace_: true, vt: ruler/vt}", "probe.grids=[{}]", "probe.while_training=null"],
        ["probe.grids[4].depths=_drop_"],
        ["probe.tasks=_drop_", "probe.tasks.a={type: niah}", "probe.grids=[{}]", "probe.while_training=null"],
        ["probe.tasks.multikey=_drop_", "probe.tasks.multikey.n_keys=7"],
        ["probe.tasks.multikey=ruler/vt", "probe.tasks.multikey={n_keys: 7}"],
        ["probe.tasks.multikey=ruler/vt", "probe.tasks.multikey.n_keys=7"],
        ["probe.grids=_drop_", "probe.grids[0].n=5"],
        ["probe.grids[0]=_drop_", "probe.grids[0].n=5"],
        ["probe.grids={0: _drop_, 1: {n: 5}}"],
        ["probe.grids[0].lengths=[1, 2]", "probe.grids[0].lengths[0]=_drop_", "probe.grids[0].lengths[0]=1"],
        ["probe.tasks.b=${probe.tasks.multikey}", "probe.grids[0].n=${probe.grids[1].n}"],
        ["probe=_drop_"],
    ],
)
def test_train_and_evaluate_understand_a_setting_alike(words):
    run = parse(load([SHORT], []))

    def outcome(make):
        try:
            config = make()
            return config.probe, config.pe
        except ConfigError as error:
            return str(error)

    trained = outcome(lambda: parse(load([SHORT], words)))
    assert outcome(lambda: _with_settings(run, read_settings([], words))) == trained


def test_tasks_of_a_file_have_no_settings_of_the_runs_tasks():
    run, file = parse(load([SHORT], [])), load(["configs/probe/needles.yaml"], [])
    probed = _with_settings(run, read_settings(["configs/probe/needles.yaml"], [])).probe.tasks
    for name, task in file["probe"]["tasks"].items():
        assert probed[name].written == task


def test_evaluate_takes_the_places_of_data_and_no_setting_of_training():
    run = parse(load([SHORT], []))
    places = read_settings([], ["data={corpus: [a.txt], folder: there}", "data.folder=here"])
    _refuse_training(places)
    moved = _with_places(run, places)
    assert ([str(source) for source in moved.data.corpus], moved.data.folder) == (["a.txt"], "here")
    assert moved.data.recipes == run.data.recipes
    for word, section in (
        ("data=_drop_", "data"),
        ("data={held_out: 0.1}", "data"),
        ("train.lr=1", "train"),
        ("seed=1", "seed"),
    ):
        with pytest.raises(ConfigError, match=f"^{section}: a setting of training"):
            _refuse_training(read_settings([], [word]))


def test_a_level_of_a_grid_replaces_and_drops():
    words = [
        "grid={arch: {a: {model: {mixers: {attention: {positional: {type: alibi}}}}}, b: {train: {lr: _drop_}}}}"
    ]
    words += [
        "model.layout=attention+mlp",
        "model.mixers.attention.positional={type: rope, base: 500}",
        "match.budget=null",
        "model.d_ff=64",
        "grid.seed=null",
    ]
    runs = {
        run.name: run.config
        for run in make_plan(load(["configs/quickstart.yaml"], [*words, "train.lr=0.5", "study.tuned_by=null"])).runs
    }
    positional = {name: run.model.mixers["attention"].config.positional for name, run in runs.items()}
    assert (positional["a"].name, positional["b"].name) == ("alibi", "rope")
    assert (runs["a"].train.lr, runs["b"].train.lr) == (0.5, parse({}).train.lr)


AXES = {
    "seed": 7,
    "grid": {
        "seed": [0, 1, 2],
        "model.positional": ["rope", "alibi"],
        "train": {"lr": [0.1, 0.2]},
        "arch": {"p": {"model": {"layout": "attention"}}, "q": {"model": {"layout": "mamba2"}, "seed": 5}},
    },
}
LABELS = AXES["grid"]["arch"]


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["seed=1"], {"seed": [1]}),
        (["seed=1", "grid.seed=[3, 4]"], {"seed": [3, 4]}),
        (["grid.seed=[3, 4]", "seed=1"], {"seed": [1]}),
        (["train={lr: 0.5, clip: 2}"], {"train.lr": [0.5]}),
        (["model.positional={type: rope, base: 500}"], {"model.positional": [{"type": "rope", "base": 500}]}),
        (["grid.seed=null"], {"seed": None}),
        (["grid.seed=_drop_"], {"seed": None}),
        (["grid.train.lr=null"], {"train.lr": None}),
        (["grid.model.positional=[none]"], {"model.positional": ["none"]}),
        (["grid.arch.p=null"], {"arch": {"q": LABELS["q"]}}),
        (["grid.arch.q.seed=6"], {"arch": {"p": LABELS["p"], "q": {**LABELS["q"], "seed": 6}}}),
        (["grid.model.mixers.attention.head_dim=[8, 16]"], {"model.mixers.attention.head_dim": [8, 16]}),
        (["model.d_model=32"], {}),
    ],
    ids=str,
)
def test_axes_are_dropped_changed_and_reduced_to_one_value(tmp_path, words, changed):
    """A key that is set after its axis is the axis's only value, so that a run's name, and with it a trained run, is
    the one of the whole study; null takes an axis or a label away. Files and key=value alike."""
    path, plain = tmp_path / "study.yaml", {"seed": [0, 1, 2], "model.positional": ["rope", "alibi"]}
    path.write_text(yaml.safe_dump(AXES, sort_keys=False))
    wanted = {**plain, "train.lr": [0.1, 0.2], "arch": LABELS} | changed
    grid = load([str(path)], words)["grid"]
    assert [*grid] == [name for name, levels in wanted.items() if levels is not None]
    assert grid == {name: levels for name, levels in wanted.items() if levels is not None}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "grid.sed=null",
            r"^grid\.sed: given 'an axis that is not there'; allowed: seed, model.positional, .*did you mean 'seed'",
        ),
        ("grid.arch.r=null", r"^grid\.arch\.r: given '_drop_'; allowed: a key that is set before"),
        ("model.layout=rwkv7", r"^model\.layout: given 'rwkv7'; allowed: grid\.arch=null, or grid\.arch\.LABEL\."),
    ],
)
def test_what_an_axis_does_not_allow_is_said_in_one_line(tmp_path, word, message):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(AXES, sort_keys=False))
    with pytest.raises(ConfigError, match=message):
        load([str(tmp_path / "study.yaml")], [word])


def test_a_config_that_differs_from_what_was_trained_is_said(tmp_path):
    """evaluate CONFIG key=value probes a study as it was trained; settings that change nothing there are named."""
    folder = tmp_path / "quickstart"
    folder.mkdir()
    (folder / "study.yaml").write_text(to_yaml(load([SHORT], [])))
    for words in ([], ["probe.grids[0].n=5", "study.folder=elsewhere", "data.folder=there", "track.wandb=off"]):
        assert _trained_otherwise(parse(load([SHORT], words)), folder) == []
    (line,) = _trained_otherwise(parse(load([SHORT], ["train.clip=2", "grid.seed=[5]", "seed=3"])), folder)
    assert line.startswith(
        f"{folder} was trained with other settings (seed, train.clip, grid.seed): its runs are probed"
    )
