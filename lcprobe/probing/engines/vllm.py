"""vLLM's server: `prompt_logprobs` of prompts given as ids, and greedy decoding that nothing ends early.

With `prompt_logprobs: 1` every token of a prompt comes with its log-probability and that of the likeliest token. vLLM
computes the whole prompt for it: its prefix cache is not used.
"""

from typing import Any

import numpy as np

from lcprobe.probing.engines.completions import CompletionServer, Forced, WrongAnswer, id_of, wrong_count


class VllmServer(CompletionServer):
    """A server started by `vllm serve MODEL`."""

    kind = "vllm"

    def score_request(self, prompts: list[list[int]]) -> dict[str, Any]:
        """See CompletionServer."""
        return {"prompt": prompts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}

    def forced(self, choice: dict[str, Any], ids: list[int], n: int) -> Forced:
        """See CompletionServer. Of tokens that share the largest log-probability, the first id is the argmax, as in
        torch."""
        rows = choice.get("prompt_logprobs")
        if not rows or len(rows) != len(ids):
            raise wrong_count(len(rows or ()), len(ids), "prompt_logprobs")
        likelihood, right, ties = np.empty(n, dtype=np.float32), np.empty(n, dtype=bool), 0
        for i, (token, row) in enumerate(zip(ids[-n:], rows[-n:], strict=True)):
            values = {int(key): float(one["logprob"]) for key, one in row.items()}
            if token not in values:
                raise WrongAnswer(f"no log-probability of token {token} of the prompt")
            best = [key for key, value in values.items() if value == max(values.values())]
            likelihood[i], right[i] = values[token], token == min(best)
            ties += token in best and len(best) > 1
        return Forced(likelihood, right, ties)

    def greedy_request(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        """See CompletionServer. logprobs: for tokens by id, where the server does not know return_token_ids."""
        how = {"max_tokens": steps, "temperature": 0, "ignore_eos": True, "skip_special_tokens": False}
        return {"prompt": prompts, **how, "logprobs": 1, "return_tokens_as_token_ids": True, "return_token_ids": True}

    def decoded(self, choice: dict[str, Any]) -> list[int]:
        """See CompletionServer."""
        if choice.get("token_ids"):
            return [int(i) for i in choice["token_ids"]]
        ids = [id_of(token) for token in choice["logprobs"]["tokens"]]
        if None in ids:
            raise WrongAnswer("tokens without ids; allowed: vLLM from 0.5 on (return_tokens_as_token_ids)")
        return [i for i in ids if i is not None]
