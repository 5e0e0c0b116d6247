"""Tokenizers with the special tokens of chats, and chat templates as published models write theirs."""

from functools import lru_cache

import numpy as np
import tokenizers

from lcprobe.data.sources.sotu import speeches
from lcprobe.tasks.text.chat_template import parse_chat_template
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, PromptTemplate
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.tokenizers import byte_level, llama_like, numbers_in_threes, unigram

MARKS = ("<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>")
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
CHATML = """{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}
{%- for message in messages %}{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}
{%- else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA = """{{ bos_token }}{% for message in messages %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% endfor %}"""
CHATS = {"gemma": GEMMA, "chatml": CHATML, "llama": LLAMA}


def chat(name: str, tokenizer: Tokenizer) -> PromptTemplate:
    """One of CHATS, as a model with this tokenizer has it."""
    bos = {} if tokenizer.bos_id is None else {"bos_token": tokenizer.decode(np.array([tokenizer.bos_id]))}
    return parse_chat_template(CHATS[name], bos, set(MARKS), name)


@lru_cache
def templates(tokenizer: Tokenizer) -> dict[str, PromptTemplate]:
    """Every kind of template: named ones, and chats."""
    own = {name: chat(name, tokenizer) for name in CHATS}
    return {name: template for name, template in NAMED_TEMPLATES.items() if not template.is_none} | own


@lru_cache
def with_marks(name: str) -> Tokenizer:
    """A tokenizer of another family, with the special tokens of chats."""
    made = {
        "shipped": load_tokenizer,
        "llama": llama_like,
        "unigram": unigram,
        "threes": numbers_in_threes,
        "prefix": lambda: byte_level(True, False),
        "lines": lines_with_points,
    }[name]()
    inner = tokenizers.Tokenizer.from_str(made.json_text)
    inner.add_special_tokens([tokenizers.AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return Tokenizer(inner.to_str(), name=name)


@lru_cache
def lines_with_points() -> Tokenizer:
    """Byte-level BPE that keeps line breaks with the punctuation before them, as Llama 3's and Qwen's do."""
    inner = tokenizers.Tokenizer.from_str(numbers_in_threes().json_text)
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    texts = [text[:30_000].replace(". ", ".\n\n") for i, text in enumerate(speeches()) if i % 16 == 0]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner.to_str())
