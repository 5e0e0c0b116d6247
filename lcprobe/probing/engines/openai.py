"""Servers of OpenAI's completions API: `echo` gives the prompt back with the log-probability of each of its tokens.

They name tokens by their text, so whether a token is the argmax is read from its log-probability, which is then the
largest, and ids of greedy text from its tokens' texts. They end a text where the model does.
"""

from functools import cached_property
from typing import Any

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.probing.engines.completions import CompletionServer, Forced, WrongAnswer, id_of, wrong_count
from lcprobe.probing.engines.http_json import Refused

TOP = 1
"""Likeliest tokens that are asked for at each position."""


class OpenAIServer(CompletionServer):
    """A server with /v1/completions, `echo` and `logprobs`."""

    kind = "openai"
    new_tokens = 0
    """Tokens that are decoded behind a prompt to be scored: 1 on servers that refuse none."""

    def _choices(self, request: dict[str, Any], n: int) -> list[dict[str, Any]]:
        try:
            return super()._choices(request, n)
        except Refused as error:
            if error.status not in (400, 422) or not request.get("echo") or self.new_tokens:
                raise
            self.new_tokens = 1
            return super()._choices(request | {"max_tokens": 1}, n)

    def score_request(self, prompts: list[list[int]]) -> dict[str, Any]:
        """See CompletionServer."""
        return {
            "prompt": prompts,
            "max_tokens": self.new_tokens,
            "temperature": 0,
            "echo": True,
            "logprobs": TOP,
        }

    def forced(self, choice: dict[str, Any], ids: list[int], n: int) -> Forced:
        """See CompletionServer. A token whose log-probability is the largest is the argmax; another one that shares
        it is a tie."""
        found = choice.get("logprobs") or {}
        values, tops, texts = (found.get(key) or [] for key in ("token_logprobs", "top_logprobs", "tokens"))
        read = len(values) - self.new_tokens
        if read != len(ids):
            raise wrong_count(max(read, 0), len(ids), "echo with logprobs")
        likelihood, right, ties = np.empty(n, dtype=np.float32), np.empty(n, dtype=bool), 0
        for i in range(n):
            at = len(ids) - n + i
            value, top = float(values[at]), tops[at]
            if not top:
                raise WrongAnswer("no likeliest token at a position; allowed: logprobs >= 1")
            likelihood[i], right[i] = value, value >= max(top.values())
            ties += bool(right[i]) and any(one == value and text != texts[at] for text, one in top.items())
        return Forced(likelihood, right, ties)

    def greedy_request(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        """See CompletionServer."""
        return {"prompt": prompts, "max_tokens": steps, "temperature": 0, "logprobs": TOP}

    def decoded(self, choice: dict[str, Any]) -> list[int]:
        """See CompletionServer. Ids where the server writes them, or of its tokens' texts where one token alone has
        each, else those of the whole text."""
        tokens = (choice.get("logprobs") or {}).get("tokens") or []
        for ids in ([id_of(token) for token in tokens], [self._ids_of_texts.get(token) for token in tokens]):
            known = [i for i in ids if i is not None]
            if known and len(known) == len(tokens):
                return known
        text = choice["text"]
        try:
            return self.tokenizer.piece(text).tolist() if text else []
        except EpisodeError:  # no text that could follow a word as it is
            return self.tokenizer.encode(text).tolist()

    @cached_property
    def _ids_of_texts(self) -> dict[str, int]:
        """Text of a token after a word -> its id, of those texts that one token alone has."""
        before = self.tokenizer.piece(" a").tolist()
        skip = len(self.tokenizer.decode(np.array(before)))
        found: dict[str, list[int]] = {}
        for i in range(self.tokenizer.vocab_size):
            found.setdefault(self.tokenizer.decode(np.array([*before, i]))[skip:], []).append(i)
        return {text: ids[0] for text, ids in found.items() if len(ids) == 1 and text}
