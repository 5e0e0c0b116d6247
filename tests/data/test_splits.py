"""What is told of a corpus without preparing it: its digest, and whether haystacks can be cut from each split."""

import json
from dataclasses import replace

import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.documents import digest_document
from lcprobe.data.prepare import manifest_of, prepare
from lcprobe.data.preparing.held_out import digest_text
from lcprobe.data.splits import check_words
from lcprobe.errors import DataError, EpisodeError
from lcprobe.schema import build
from lcprobe.seeds import seed_of
from lcprobe.tasks.text.tokenizer import load_tokenizer

HELD_OUT = 0.25
PROSE = [f"The {i}th river runs to the sea past mill and meadow." for i in range(24)]


def config_of(folder, texts, **given) -> DataConfig:
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = {"corpus": [str(folder / "a.jsonl")], "folder": str(folder / "out"), "held_out": HELD_OUT}
    return build(DataConfig, {**made, **given}, "data")


def is_held_out(text: str) -> bool:
    return seed_of("held out", digest_document(text)) < HELD_OUT * 2**63


@pytest.mark.parametrize("given", [{}, {"max_tokens": 60}, {"held_out": 0.001}])
def test_the_digest_of_a_text_is_known_without_preparing_it(tmp_path, given):
    config = config_of(tmp_path, PROSE, **given)
    other = replace(config, folder=str(tmp_path / "other"))
    manifest = prepare(other).manifest
    known = manifest_of(config, manifest["corpus_digest"])
    assert known == {name: manifest[name] for name in known}
    assert not (tmp_path / "out").exists()
    assert manifest_of(other, "") == known
    assert prepare(other, trained_on=manifest["corpus_digest"]).manifest == manifest
    config_of(tmp_path, [*PROSE[:2], "Another text.", *PROSE[2:]])
    with pytest.raises(
        DataError, match=r"a\.jsonl: trained on corpus \w+, data\.corpus is now \w+; allowed: the text as"
    ):
        prepare(config, trained_on=manifest["corpus_digest"])
    assert not (tmp_path / "out").exists()
    assert digest_text(config, manifest["corpus_digest"]) != manifest["corpus_digest"]


@pytest.mark.parametrize(
    ("cut", "refused"),
    [("none", {"train", "probe"}), ("train", {"probe"}), ("probe", {"train"}), ("all", set())],
)
def test_words_are_looked_for_where_haystacks_are_cut(tmp_path, cut, refused):
    """Text without spaces in one split or both, and the same as what tells prepared data."""
    unbroken = ["你好世界" * 9 + str(number) for number in range(24)]
    held = {out: [text for text in unbroken if is_held_out(text) == out] for out in (False, True)}
    assert all(held.values())
    texts = [
        text if cut in ("all", "probe" if out else "train") else held[out][i % len(held[out])]
        for i, text in enumerate(sorted(PROSE, key=is_held_out, reverse=True))  # the last one trains in any case
        for out in (is_held_out(text),)
    ]
    config = config_of(tmp_path, texts)
    tokenizer, prepared = load_tokenizer("shipped"), prepare(config)
    for split, name in (("train", "to train on"), ("probe", "held out")):
        if split in refused:
            with pytest.raises(EpisodeError, match=f"no token of a space and a word in .* {name}"):
                check_words(config, tokenizer, {split})
            with pytest.raises(EpisodeError, match="of which 0 begin a word"):
                prepared.materials(split).stream("corpus")
        else:
            check_words(config, tokenizer, {split})
            assert len(prepared.materials(split).stream("corpus")) > 10
