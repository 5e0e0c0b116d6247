"""Servers by kind: `openai:URL`, `vllm:URL`."""

from lcprobe.errors import unknown_name
from lcprobe.probing.config import ServerConfig
from lcprobe.probing.engines.completions import CompletionServer
from lcprobe.probing.engines.openai import OpenAIServer
from lcprobe.probing.engines.vllm import VllmServer
from lcprobe.tasks.text.tokenizer import Tokenizer

SERVERS: dict[str, type[CompletionServer]] = {"openai": OpenAIServer, "vllm": VllmServer}


def server(kind: str, url: str, tokenizer: Tokenizer, config: ServerConfig) -> CompletionServer:
    """The server of a kind at an address, with the model that `config` names or its first one.

    tokenizer: the model's own; prompts are sent as its ids. Raises ConfigError for an unknown kind and for something
    that is no address, ServerError where no server answers.
    """
    if kind not in SERVERS:
        raise unknown_name("server", kind, SERVERS)
    return SERVERS[kind](url, tokenizer, config)
