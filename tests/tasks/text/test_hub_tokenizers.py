"""Tokenizers on the hub without network: planned by what is known of them, refused in one line at once."""

import socket
import time

import pytest

from lcprobe.errors import ConfigError, ServerError
from lcprobe.hub import hub_is_unreachable, reaching
from lcprobe.tasks.text.hub_tokenizers import check_planned, fetch, is_hub_name, known_vocabulary
from lcprobe.tasks.text.tokenizer import load_tokenizer, tokenizer_here


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gpt2", 50257), ("openai-community/gpt2-xl", 50257), ("EleutherAI/gpt-neox-20b", 50277),
        ("EleutherAI/pythia-160m", 50277), ("meta-llama/Llama-2-7b-hf", 32000), ("mistralai/Mistral-7B-v0.3", 32768),
        ("meta-llama/Llama-3.2-1B-Instruct", 128256), ("meta-llama/Llama-3.2-11B-Vision", None),
        ("Qwen/Qwen2-0.5B", 151646), ("Qwen/Qwen2-VL-2B", None), ("Qwen/Qwen2.5-7B", 151665),
        ("Qwen/Qwen3-8B", 151669), ("google/gemma-2-2b", 256000), ("google/recurrentgemma-2b", 256000),
        ("state-spaces/mamba-130m-hf", 50277), ("state-spaces/mamba-130m", None), ("someone/else", None),
    ],
)  # fmt: skip
def test_well_known_vocabularies(name, size):
    assert is_hub_name(name)
    assert known_vocabulary(name) == size


def test_paths_are_no_names():
    assert not any(map(is_hub_name, ("my/tokenizer.json", "./a/b", "/a/b", "a", "a/b/c", "shipped")))


def test_what_is_not_here_is_no_tokenizer_and_is_refused_in_one_line():
    assert tokenizer_here("gpt2") is None
    assert tokenizer_here("shipped") is load_tokenizer("shipped", None)
    with pytest.raises(ConfigError, match="when online .HF_HUB_OFFLINE is set"):
        load_tokenizer("EleutherAI/gpt-neox-20b")


def test_a_plan_asks_for_what_it_cannot_know():
    for name, rows in (("gpt2", None), ("some/one", 500), ("shipped", None)):
        check_planned(name, rows)
    with pytest.raises(ConfigError, match=r"given 'some/one'; allowed: .*its ids in model\.vocab_size"):
        check_planned("some/one", None)


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_no_network_is_known_after_a_moment(monkeypatch, how):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(reaching, "CONNECT_SECONDS", 0.1)

    def connect(address, timeout):
        if how == "silent":
            time.sleep(0.3)  # a name that takes long to resolve
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", connect)
    assert "huggingface.co not reachable: " in (hub_is_unreachable() or "")
    with pytest.raises(ServerError, match="when online .huggingface.co not reachable"):
        fetch("gpt2")
