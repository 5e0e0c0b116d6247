"""Tokenizers and texts that cannot work are named in one line before anything is prepared or written."""

import json

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from lcprobe.cli.commands import data_main, evaluate_main, train_main
from tests.test_mistakes import one_line


def byte_level():
    inner = tokenizers.Tokenizer(
        models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return inner


def word_piece():
    inner = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return inner


def clip_like():
    inner = tokenizers.Tokenizer(
        models.BPE({"a": 0, "b</w>": 1, "ab</w>": 2}, [("a", "b</w>")], end_of_word_suffix="</w>")
    )
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder(suffix="</w>")
    return inner


def word_level():
    inner = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "word": 1}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return inner


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (byte_level, "single characters"),
        (word_piece, "a WordPiece tokenizer, which drops spaces"),
        (word_level, "a WordLevel tokenizer, which drops spaces"),
        (clip_like, "a tokenizer like CLIP's, which marks the ends of words (</w>)"),
    ],
)
@pytest.mark.parametrize("command", [data_main, train_main, evaluate_main])
def test_a_tokenizer_that_hides_words_is_named_before_anything_is_written(tmp_path, capsys, command, make, words):
    make().save(str(tmp_path / "t.json"))
    folders = [f"data.folder={tmp_path}/data", f"study.folder={tmp_path}/runs"]
    arguments = ["configs/quickstart.yaml", *folders, f"data.tokenizer={tmp_path}/t.json"]
    before, after = {data_main: (["prepare"], []), train_main: ([], []), evaluate_main: ([], ["--cheat"])}[command]
    one_line(command([*before, *arguments, *after]), capsys, "data.tokenizer", words)
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize(
    "text", ["这是一个没有空格的文本。" * 3000, "aGVsbG8gd29ybGQ" * 3000, "كلمة أخرى في النص العربي " * 2000]
)
def test_a_corpus_without_words_of_the_tokenizer_is_refused_before_it_is_prepared(tmp_path, capsys, text):
    (tmp_path / "a.txt").write_text(text)
    arguments = ["configs/quickstart.yaml", "study.tuned_by=null", "train.lr=0.01", f"data.corpus=[{tmp_path}/a.txt]"]
    arguments += [f"data.folder={tmp_path}/data", f"study.folder={tmp_path}/runs"]
    one_line(
        train_main(arguments), capsys, "data.corpus: given 'no token of a space and a word in", "text with spaces"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("command", ["train", "cheat"])
def test_a_tokenizer_or_length_that_cannot_work_is_refused_before_anything_is_written(
    tmp_path, capsys, command, without_digits
):
    arguments = [
        "configs/quickstart.yaml",
        "study.tuned_by=null",
        f"study.folder={tmp_path}/runs",
        f"data.folder={tmp_path}/data",
    ]
    if command == "train":
        one_line(
            train_main([*arguments, f"data.tokenizer={without_digits}"]), capsys, "formats.key", str(without_digits)
        )
        given = ["data.mixture.0.lengths=[0.125]", "train.lr=0.01"]
        one_line(train_main([*arguments, *given]), capsys, "data.mixture[0].episodes.pairs", "at least")
    else:
        one_line(
            evaluate_main([*arguments, f"data.tokenizer={without_digits}", "--cheat"]),
            capsys,
            "formats.key",
            "letters.json",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_questions_with_nothing_to_train_on_is_refused_before_anything_is_written(tmp_path, capsys):
    texts = [
        f"{name} was the founder of village {i} and lived there long."
        for i, name in enumerate(("Anna", "Bert", "Carla"))
    ]
    questions = [
        [{"question": f"Who? {i}", "answers": [{"text": text.split()[0], "answer_start": 0}]}]
        for i, text in enumerate(texts)
    ]
    paragraphs = [{"context": text, "qas": qas} for text, qas in zip(texts, questions, strict=True)]
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"data": [{"title": "villages", "paragraphs": paragraphs}]}))
    arguments = [
        "configs/quickstart.yaml",
        "study.tuned_by=null",
        "train.lr=0.01",
        f"study.folder={tmp_path}/runs",
        f"data.folder={tmp_path}/data",
        f"data.recipes.lines={{task: {{type: qa, source: squad, path: {path}}}}}",
    ]
    one_line(train_main(arguments), capsys, "data.recipes.lines.task.path", "train questions about two paragraphs")
    assert [*tmp_path.iterdir()] == [path]
