"""What a study's tasks, lengths and tables of positions cannot do is one line, before anything is printed or
written."""

import copy
import json
from dataclasses import replace

import pytest

from lcprobe.cli.commands import train_main
from lcprobe.config import load, parse
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.lengths import in_tokens, multiples
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.schema import build
from lcprobe.studies.planning import preflight
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.planning.preflight import check_probes_fit, check_tasks_fit
from lcprobe.tasks.text.tokenizer import load_tokenizer
from tests.tiny import TINY, write_config

LENGTHS = {"L64": {"train": {"context_length": 64}}, "L80": {"train": {"context_length": 80}}}
ARCH = {"attn": {"model": {"layout": "attention+mlp"}}, "mamba2": {"model": {"layout": "mamba2"}}}
GRID = {"length": LENGTHS, "arch": ARCH}
SINGLE = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}

MISTAKES = [  # (key=value, the key that the message must name, words of the message)
    ("probe.grids=[{lengths: [0.5, 0.25, 0.0125]}]", "(L64, attn): probe.grids[0].lengths", "whole tokens of 64"),
    ("probe.grids=[{lengths: [1]}, {lengths: [0.015625]}]", "(L80, attn): probe.grids[1].lengths", "tokens of 80"),
    ("probe.context.lengths=[1, 1.125, 1.0125]", "probe.context.lengths", "whole tokens of 64"),
    ("probe.while_training.lengths=[0.828125]", "(L80, attn): probe.while_training.lengths", "whole tokens of 80"),
    ("data.mixture=[{lm: 1, lengths: [0.0625, 0.03125]}]", "(L80, attn): data.mixture[0].lengths", "tokens of 80"),
    ("data.mixture=[{lm: 1, lengths: [64t]}]", "(L80, attn): data.mixture[0].lengths: given '64t'", "divisor"),
    ("data.mixture=[{lm: 0.5, episodes: {lines: 1}, lengths: [16t]}]", "data.mixture[0].episodes.lines", "training length 64"),
    ("train.length_schedule=[{until: 0.5, length: 16t}, {length: 1}]", "data.mixture[0].episodes.lines", "16 by train.length_schedule"),
    ("train.length_schedule=[{until: 0.5, length: 0.3}, {length: 1}]", "train.length_schedule[0].length", "whole tokens of 64"),
    ("probe.grids=[{lengths: [64t, 8t]}]", "probe.grids[0].lengths: given '8t for single", "at least"),
    ("probe.while_training.lengths=[8t]", "probe.while_training.lengths: given '8t for single", "at least"),
    ("probe.grids=[{lengths: [64t, 1]}]", "probe.grids[0].lengths", "not both in one list"),
    ("probe.context.lengths=[1Kt, 1]", "probe.context.lengths", "not both in one list"),
    ("grid.arch.attn.model.positional={type: learned, max_length: 64}", "(L80, attn): model.positional.max_length", "80"),
    ("train.length_schedule=[{until: 0.5, length: 32t}, {}]", "(L80, attn): train.length_schedule[0].length", "divisor"),
    ("train.length_schedule=[{length: 0.5}]", "train.length_schedule: given 0.5", "reaches context_length (64)"),
    ("probe.tasks.single.formats={haystack: noses}", "probe.tasks.single.formats.haystack", "noise"),
    ("data={recipes: {lines: {value: [numbers, uuids]}}, mixture: [{episodes: {lines: 1}}]}", "data.mixture[0].episodes.lines", "tokens for haystack corpus, key words, value uuids"),
]  # fmt: skip


@pytest.fixture
def config(tmp_path):
    """Two architectures at 64 and 80 tokens, with everything under one folder."""
    train = {"tokens": 640, "batch_tokens": 320, "context_length": 64, "threads": 1}
    model = {"d_ff": 16, "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8}}}
    match = {"budget": None, "refuse_above": 0.9}
    path = write_config(
        tmp_path, {"folder": str(tmp_path / "data")}, grid=GRID, train=train, model=model, match=match
    )
    return path


@pytest.mark.parametrize(
    ("override", "key", "words", "plan"),
    [*((*mistake, ["--plan"]) for mistake in MISTAKES), *((*mistake, []) for mistake in MISTAKES[6:10:3])],
)
def test_a_mistake_is_one_line_before_anything_is_printed_or_written(
    config, tmp_path, capsys, override, key, words, plan
):
    assert train_main([str(config), override, *plan]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert key in captured.err, captured.err
    assert words in captured.err, captured.err
    assert [*tmp_path.iterdir()] == [config]


def probe(*grids: Grid) -> ProbeConfig:
    return ProbeConfig(tasks=build(ProbeConfig, {"tasks": {"single": SINGLE}}).tasks, grids=list(grids))


def test_a_multiple_that_is_too_short_is_left_out_and_a_length_in_tokens_is_refused():
    """The least length is the same in both messages, and a length that is not below it is planned."""
    plan = check_probes_fit(probe(Grid(lengths=multiples(0.125, 1))), "shipped", None, [64, 128])
    (short, shorter) = sorted(plan.too_short, key=lambda s: -s.length)
    assert {unit.length for unit in plan.units} == {64, 128}
    assert (short.length, shorter.length) == (16, 8)
    with pytest.raises(EpisodeError, match=f"^probe.grids.1..lengths: given '16t for .*at least {short.least}t"):
        check_probes_fit(probe(Grid(), Grid(lengths=in_tokens(16, 64))), "shipped", None, [64])
    enough = check_probes_fit(probe(Grid(lengths=in_tokens(short.least))), "shipped", None, [64])
    assert [unit.length for unit in enough.units] == [short.least]
    with pytest.raises(EpisodeError, match=f"at least {short.least}t .*data.tokenizer is shipped"):
        check_probes_fit(probe(Grid(lengths=in_tokens(short.least - 1))), "shipped", None, [64])


def test_each_training_length_is_checked():
    fits = probe(Grid(lengths=multiples(0.0125)))
    assert check_probes_fit(fits, "shipped", None, [80, 160]).units == []
    with pytest.raises(ConfigError, match="whole tokens of 64"):
        check_probes_fit(fits, "shipped", None, [64, 80, 160])


def test_each_runs_own_data_are_checked():
    """A recipe that fits at the second run's length and not at the first's."""
    given = copy.deepcopy(TINY) | {"grid": {}}
    given["data"]["mixture"] = [{"lm": 0.5, "episodes": {"lines": 1}, "lengths": [0.5]}]
    runs = []
    for length in (256, 32):
        given["train"] |= {"context_length": length, "batch_tokens": 256}
        runs.append(parse(given))
    check_tasks_fit(runs[:1], training=True)
    with pytest.raises(ConfigError, match="given 'sequences of 16 tokens at training length 32'"):
        check_tasks_fit(runs, training=True)


def test_every_combination_of_a_recipes_formats_fits():
    """The least length that is named is enough for all, and one token less is not, wherever it is in the list."""
    given = copy.deepcopy(TINY) | {"grid": {}}
    recipe: dict = {"task": {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}, "key": ["uuids", "words"]}

    def check(length: int, *values: str) -> None:
        given["data"] |= {"recipes": {"lines": recipe | {"value": list(values)}}}
        given["data"]["mixture"] = [{"lm": 0.5, "episodes": {"lines": 1}}]
        given["train"] |= {"context_length": length, "batch_tokens": length}
        check_tasks_fit([parse(given)], training=True)

    for values in (["numbers", "uuids"], ["uuids", "numbers"]):
        with pytest.raises(ConfigError, match=r"for haystack corpus, key uuids, value uuids") as caught:
            check(32, *values)
        least = int(str(caught.value).split("at least ")[1].split()[0])
        check(least, *values)
        with pytest.raises(ConfigError, match=f"at least {least} tokens"):
            check(least - 1, *values)
        check(least - 1, "numbers")


@pytest.mark.parametrize("probe_every", [None, 0])
def test_what_is_too_short_to_be_probed_while_training_is_noted(config, capsys, probe_every):
    def printed(lengths: list[float]) -> str:
        changed = ["probe.while_training.lengths=" + json.dumps(lengths)]
        changed += [] if probe_every is None else [f"train.probe_every={probe_every}"]
        assert train_main([str(config), *changed, "--plan", "--full"]) == 0
        return capsys.readouterr().out

    assert "while_training" not in printed([1])
    (short, shorter) = printed([0.125, 1]), printed([0.125])
    assert len(shorter.splitlines()) == len(short.splitlines())
    for length in (64, 80):
        note = f"probe.while_training at training length {length}: single corpus/words/numbers: {length // 8} tokens are too few (at least "
        for out, nothing in ((short, False), (shorter, True)):
            lines = [line for line in out.splitlines() if line.startswith(note)]
            assert len(lines) == (probe_every is None), out
            assert all(line.endswith("nothing is probed") == nothing for line in lines)


def test_each_runs_own_tokenizer_is_checked(config, tmp_path, capsys, without_digits):
    """The vocabulary of each run's model is its tokenizer's, and what a tokenizer cannot represent is named."""
    tokenizers = {
        "shipped": {"data": {"tokenizer": "shipped"}},
        "letters": {"data": {"tokenizer": str(without_digits)}},
    }
    arguments = [str(config), f"grid={json.dumps({'tokenizer': tokenizers, **GRID})}", "match.allow_mismatch=true"]
    runs = make_plan(load(arguments[:1], arguments[1:])).runs
    sizes = {run.config.data.tokenizer: run.config.model.vocab_size for run in runs}
    assert sizes == {"shipped": 4096, str(without_digits): load_tokenizer(str(without_digits)).vocab_size}
    assert train_main([*arguments, "--plan"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: formats.value")
    assert "letters.json" in captured.err
    assert [*tmp_path.iterdir()] == [config]


def test_what_is_too_long_is_noted_for_probes_and_refused_for_training():
    given = copy.deepcopy(TINY) | {"grid": {}}
    given["train"] |= {"context_length": 2048, "tokens": 4096, "batch_tokens": 2048}
    grid = {"lengths": ["256t", "2Kt"], "haystack": ["needles"], "n": 2, "tasks": ["multikey"]}
    given["probe"] |= {"grids": [grid], "while_training": grid | {"depths": 1}, "context": None}
    given["data"] |= {"mixture": [{"lm": 1.0}]}
    probes, training = check_tasks_fit([parse(given)], training=True)
    assert probes.startswith("probe.grids: left out: multikey needles/words/numbers: 2048 tokens are too many (")
    assert training.startswith(
        "probe.while_training at training length 2048: multikey needles/words/numbers: 2048 tok"
    )
    given["data"] |= {"recipes": {"lines": {"task": SINGLE, "haystack": ["corpus", "needles"]}}}
    given["data"] |= {"mixture": [{"lm": 0.5, "episodes": {"lines": 1}, "lengths": [1, 0.125]}]}
    with pytest.raises(
        ConfigError, match=r"^data.mixture\[0\].episodes.lines: given 'sequences of 2048 .*needle-like"
    ):
        check_tasks_fit([parse(given)], training=True)
    given["data"]["mixture"][0]["lengths"] = [0.25, 0.125]
    assert check_tasks_fit([parse(given)], training=True) == [probes, training]


@pytest.mark.parametrize(
    ("probe", "fits", "message"),
    [
        ({"grids": [{"lengths": [1]}, {"lengths": [4]}]}, 256 * 32, r"^probe\.grids\[1\]\.lengths: given '256 tokens'; allowed: at most 255 "),
        ({"context": {"lengths": [1, 2], "n": 4}}, 128 * 8 * 4, "^probe.context: given '128 tokens in each of 4 windows'; allowed: at most 127 in"),
    ],
)  # fmt: skip
def test_what_does_not_fit_into_memory_is_refused_before_it_is_built(monkeypatch, probe, fits, message):
    config = build(ProbeConfig, {"tasks": {"single": SINGLE}, **probe}, "probe")
    monkeypatch.setattr(preflight, "machine_memory", lambda: fits)
    preflight.check_memory(config, [64])
    monkeypatch.setattr(preflight, "machine_memory", lambda: fits - 1)
    with pytest.raises(ConfigError, match=message):
        preflight.check_memory(config, [64])
    monkeypatch.setattr(preflight, "machine_memory", lambda: None)
    preflight.check_memory(config, [64])


@pytest.mark.parametrize("key", ["train.context_length", "probe.while_training.lengths"])
def test_sequences_of_training_that_do_not_fit_into_memory(monkeypatch, key):
    given = {**TINY, "grid": {}, "match": {}, "model": {**TINY["model"], "layout": "mamba2", "d_ff": 16}}
    if key.startswith("probe"):
        given["probe"] = {**TINY["probe"], "while_training": {"lengths": [1]}, "grids": []}
    config = parse(given)
    monkeypatch.setattr(preflight, "machine_memory", lambda: config.train.context_length * 32 - 1)
    while_training = config.probe.while_training if key.startswith("probe") else None
    given_probe = replace(config.probe, grids=[], context=None, while_training=while_training)
    with pytest.raises(ConfigError, match=f"^{key}: given '64 tokens'; allowed: at most 63 "):
        check_tasks_fit([replace(config, probe=given_probe)], training=True)
