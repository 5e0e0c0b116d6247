"""A stand-in for servers of the completions API: true answers of a small model, over HTTP on this machine.

It speaks OpenAI's API (`echo`, `logprobs`) or vLLM's extensions of it (`prompt_logprobs`, `ignore_eos`, token ids),
and has the faults that an engine must survive or refuse.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor

from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.tasks.text.tokenizer import Tokenizer

VLLM, OPENAI = "vllm", "openai"


@dataclass
class Faults:
    """noise: added to every log-probability of a prompt, in nats. busy: requests that are answered with 503 first.
    dies_after: completions after which the server is gone, in the middle of the next answer. begins: a token that it
    puts before every prompt. echoes: whether it can give prompts back at all. takes_zero: whether it decodes no token
    on demand."""

    noise: float = 0.0
    busy: int = 0
    dies_after: int | None = None
    begins: int | None = None
    echoes: bool = True
    takes_zero: bool = True


class StandIn:
    """A server of one model. requests: completions so far. tokens: prompt tokens that were sent to it."""

    def __init__(self, model: ProbedModel, tokenizer: Tokenizer, kind: str, faults: Faults, port: int = 0):
        self.model, self.tokenizer, self.kind, self.faults = model, tokenizer, kind, faults
        self.requests, self.tokens = 0, 0
        self._texts: dict[int, str] = {}
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            wbufsize = -1  # one packet for head and body: two would wait for each other's acknowledgement

            def do_GET(self) -> None:
                row = {"id": "tiny", "object": "model"}
                self._send(200, {"data": [row | ({"max_model_len": 4096} if kind == VLLM else {})]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if faults.busy > 0:
                    faults.busy -= 1
                    return self._send(503, {"error": {"message": "busy"}})
                if faults.dies_after is not None and stand_in.requests >= faults.dies_after:
                    self.close_connection = True
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")  # and then nothing
                    self.end_headers()
                    threading.Thread(target=stand_in.close).start()
                    return None
                if body["max_tokens"] == 0 and not faults.takes_zero:
                    return self._send(400, {"error": {"message": "max_tokens must be at least 1"}})
                stand_in.requests += 1
                choices = stand_in.choices(body)
                return self._send(200, {"choices": [{"index": i, **c} for i, c in enumerate(choices)][::-1]})

            def _send(self, status: int, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self) -> None:
        """Ends the server; its port is free."""
        self.http.shutdown()
        self.http.server_close()

    @torch.inference_mode()
    def choices(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The choices of a completion, one for each prompt."""
        begin = [] if self.faults.begins is None else [self.faults.begins]
        prompts = [begin + prompt for prompt in body["prompt"]]
        self.tokens += sum(map(len, prompts))
        n, eos = body["max_tokens"], self.tokenizer.bos_id

        def ended(_: int, ids: list[int]) -> bool:
            return ids[-1] == eos and not body.get("ignore_eos")

        new: list[list[int]] = [[] for _ in prompts]
        if n:
            new = Continuer(self.model, "cpu", 1024, 65_536).greedy(prompts, [n] * len(prompts), ended)
        return [self._choice(body, prompt, ids) for prompt, ids in zip(prompts, new, strict=True)]

    def _choice(self, body: dict[str, Any], prompt: list[int], new: list[int]) -> dict[str, Any]:
        written = [i for i in new if i != self.tokenizer.bos_id or body.get("skip_special_tokens") is False]
        choice: dict[str, Any] = {"text": self.tokenizer.decode(torch.tensor(written, dtype=torch.int64).numpy())}
        if self.kind == VLLM:
            if body.get("return_token_ids"):
                choice["token_ids"] = new
            if body.get("prompt_logprobs") is not None:
                choice["prompt_logprobs"] = [None, *self._rows(self._logs(prompt), prompt)]
            return choice
        choice["logprobs"] = {"tokens": [self._text(i) for i in written]}
        if body.get("echo") and self.faults.echoes:
            ids = prompt + new
            logs = self._logs(ids)
            top, at = logs.max(-1)
            choice["logprobs"] = {
                "tokens": [self._text(i) for i in ids],
                "token_logprobs": [None, *logs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()],
                "top_logprobs": [
                    None,
                    *({self._text(int(i)): float(t)} for i, t in zip(at, top, strict=True)),
                ],
            }
        return choice

    def _logs(self, ids: list[int]) -> Tensor:
        """(n - 1, vocab_size) log-probabilities of the tokens after each."""
        hidden, _ = self.model.hidden(torch.tensor([ids]), state=self.model.new_state(1))
        return self.model.logits(hidden[0, :-1]).log_softmax(-1) + self.faults.noise

    @staticmethod
    def _rows(logs: Tensor, ids: list[int]) -> Iterator[dict[str, Any]]:
        forced, (top, best) = logs.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0], logs.max(-1)
        ranks = 1 + (logs > forced[:, None]).sum(-1)
        for at, token in enumerate(ids[1:]):
            likeliest = {str(int(best[at])): {"logprob": float(top[at]), "rank": 1}}
            yield likeliest | {str(token): {"logprob": float(forced[at]), "rank": int(ranks[at])}}

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = self.tokenizer.decode(torch.tensor([token]).numpy())
        return self._texts[token]


@contextmanager
def stand_in(
    model: ProbedModel, tokenizer: Tokenizer, kind: str, faults: Faults | None = None, port: int = 0
) -> Iterator[StandIn]:
    """A running server; port 0: any free one."""
    running = StandIn(model, tokenizer, kind, faults or Faults(), port)
    try:
        yield running
    finally:
        running.close()
