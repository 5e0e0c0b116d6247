"""Text without spaces trains and is probed where no haystack is cut from it, and is refused where one is."""

import json

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import Unigram

from lcprobe.cli.commands import data_main, evaluate_main, train_main
from tests.tiny import TINY, write_config

RECIPE = {"lines": TINY["data"]["recipes"]["lines"] | {"haystack": ["noise"]}}
PROBE = {"grids": [{"lengths": [1], "haystack": ["noise"], "depths": 1, "n": 2}], "while_training": None}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config of a trained study of one run on Chinese text, with noise as the only haystack."""
    folder = tmp_path_factory.mktemp("unbroken")
    rows = (json.dumps({"text": "山高水長日月星辰" * 40 + str(i)}) + "\n" for i in range(20))
    (folder / "a.jsonl").write_text("".join(rows))
    config = write_config(
        folder,
        {"corpus": [str(folder / "a.jsonl")], "folder": str(folder / "data"), "held_out": 0.3, "recipes": RECIPE},
        train={"tokens": 64 * 4, "probe_every": 0},
        probe=PROBE | {"context": None},
        grid={"arch": {"mamba2": {"model": {"layout": "mamba2"}}}},
        match={"budget": None},
    )
    assert train_main([str(config)]) == 0
    return config


def test_it_is_probed_on_other_haystacks(config):
    assert evaluate_main([str(config.parent / "runs" / "tiny")]) == 0


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize(
    "asks",
    [
        'probe.grids=[{"lengths": [1], "haystack": ["noise", "corpus"], "depths": 1, "n": 2}]',
        'probe.context={"lengths": [1], "n": 2}',
        'probe.tasks={"single": {"formats": {"haystack": "corpus"}}}',
        'data.recipes={"lines": {"haystack": ["noise", "corpus"]}}',
    ],
)
def test_it_is_refused_before_any_work_where_a_haystack_is_cut_from_it(config, asks, prepared, tmp_path, capsys):
    data = config.parent / "data" if prepared else tmp_path / "data"
    commands = [(data_main, ["prepare", str(config)]), (train_main, [str(config), "--plan"])]
    if not asks.startswith("data."):  # what a run was trained on stays as it is
        commands.append((evaluate_main, [str(config.parent / "runs" / "tiny"), "--plan"]))
    for command, words in commands:
        capsys.readouterr()
        assert command([*words, f"data.folder={data}", asks]) == 2, command
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "begin a word after a space" in line or "no token of a space and a word in" in line
    assert not (tmp_path / "data").exists(), "nothing is written"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["▁كتاب", "▁", "ب"], "haystack words: given"),
        (
            ["▁a", "▁th", "▁", "e", "a"],
            "formats.key: given 'words'; allowed: a format that this tokenizer gives back",
        ),
    ],
)
def test_a_tokenizer_that_no_episode_can_be_written_with_is_refused_everywhere(
    config, tokens, message, tmp_path, capsys
):
    small = Tokenizer(Unigram([("<unk>", 0.0), *((token, -2.0) for token in tokens)], 0))
    small.pre_tokenizer, small.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    small.save(str(tmp_path / "t.json"))
    given = [str(config), f"data.tokenizer={tmp_path}/t.json", f"data.folder={tmp_path}/data"]
    messages = []
    for command, words in ((data_main, ["prepare", *given]), (train_main, [*given, "study.name=new", "--plan"])):
        capsys.readouterr()
        assert command(words) == 2
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]
    assert message in messages[0]
    assert not (tmp_path / "data").exists()
