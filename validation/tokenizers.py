"""Tokenizers of other families, trained in a second each: SentencePiece-like BPE, Unigram, byte-level BPE with longer
numbers, with a space before every text, in lower case, and WordPiece.
"""

from functools import lru_cache

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from lcprobe.data.sources.sotu import speeches
from lcprobe.tasks.text.tokenizer import Tokenizer


def _texts():
    return [text[:60_000] for i, text in enumerate(speeches()) if i % 12 == 0]


@lru_cache
def llama_like() -> Tokenizer:
    """BPE over text whose spaces are ▁, with a ▁ before the first word and byte fallback."""
    inner = Inner(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    special = ["<unk>", "<s>", *bytes_]
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=special, show_progress=False, max_token_length=12)
    # words with their space before them, punctuation apart, as SentencePiece's split by script does
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Punctuation("isolated")]
    )
    inner.train_from_iterator(_texts(), trainer)
    return Tokenizer(inner.to_str())


@lru_cache
def unigram() -> Tokenizer:
    """Unigram with Metaspace, single digits, no BOS."""
    inner = Inner(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(individual_digits=True)]
    )
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted({c for text in _texts() for c in text} | set("0123456789abcdefghijklmnopqrstuvwxyz-:;."))
    trainer = trainers.UnigramTrainer(
        vocab_size=2500, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False, initial_alphabet=alphabet
    )
    inner.train_from_iterator(_texts(), trainer)
    return Tokenizer(inner.to_str())


@lru_cache
def numbers_in_threes() -> Tokenizer:
    """Byte-level BPE that keeps up to three digits together, as the GPT-4 and Llama-3 families do."""
    inner = Inner(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    numbers = " ".join(str(i) for i in range(1000))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=5000, special_tokens=["<|endoftext|>"], show_progress=False, initial_alphabet=alphabet
    )
    inner.train_from_iterator([*_texts(), *[numbers] * 20], trainer)
    return Tokenizer(inner.to_str())


@lru_cache
def byte_level(prefix_space: bool, lower_case: bool) -> Tokenizer:
    """Byte-level BPE that puts a space before every text, as RoBERTa's may, or lowercases it, or both."""
    inner = Inner(models.BPE())
    if lower_case:
        inner.normalizer = normalizers.Sequence(
            [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
        )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator(_texts(), trainer)
    return Tokenizer(inner.to_str())


@lru_cache
def word_piece() -> Tokenizer:
    """WordPiece in lower case, as BERT's: its tokens do not say where spaces are."""
    inner = Inner(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=800, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    inner.train_from_iterator(_texts(), trainer)
    return Tokenizer(inner.to_str())
