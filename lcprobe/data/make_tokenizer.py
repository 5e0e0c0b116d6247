"""Train a byte-level BPE on a corpus: how the shipped ones were trained, and how to train one for another text.

Tokens never cross the borders of these pieces: a word or one digit, each with its leading space; punctuation; line
breaks.
"""

from collections.abc import Iterable
from itertools import chain

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from lcprobe.tasks.text.tokenizer import read_words

PRE_TOKENIZER_PATTERN = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
BOS = "<|bos|>"
DIGITS_TEXT = " 0 1 2 3 4 5 6 7 8 9" * 5000


SMALL = 1024
"""Entries of `shipped-1024`."""
REPETITIONS = 3000
"""How often the text of `shipped-1024` has each key and filler."""


def train_small_tokenizer(texts: Iterable[str]) -> str:
    """The tokenizer.json of `shipped-1024`, from the embedded speeches and the words that tasks are made of.

    So few entries would spell out nouns that speeches rarely have; with the words in the text, keys have three tokens
    on average.
    """
    words = " " + " ".join(read_words("nouns") + read_words("fillers"))
    return train_tokenizer(chain(texts, [words * REPETITIONS]), SMALL)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> str:
    """The tokenizer.json of a byte-level BPE with `vocab_size` entries, `<|bos|>` being token 0. Round trips are
    exact."""
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(PRE_TOKENIZER_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # a digit after a space becomes one token even where it is rare in the text (" 0")
    inner.train_from_iterator(chain(texts, [DIGITS_TEXT]), trainer)
    return inner.to_str()
