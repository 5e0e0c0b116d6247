"""Servers of the completions API as engines: prompts as token ids, log-probabilities of answers, greedy text.

A server gives no state, so a prompt is sent anew with every candidate; what it keeps of shared prefixes is its own
affair. What differs between servers (how log-probabilities of a prompt are asked for) is in openai.py and vllm.py.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lcprobe.errors import EpisodeError, ServerError, listed
from lcprobe.probing.config import ServerConfig
from lcprobe.probing.engines.contract import Continuations, Ids
from lcprobe.probing.engines.http_json import JsonServer
from lcprobe.tasks.text.tokenizer import Tokenizer

PATH = "/v1/completions"


class WrongAnswer(Exception):
    """A part that an answer should have, and has not."""


@dataclass(frozen=True)
class Forced:
    """Log-likelihood (n,) float32 and argmax hit (n,) bool of the last n tokens of a prompt. ties: of these hits,
    those that share the largest log-probability with another token."""

    likelihood: np.ndarray
    right: np.ndarray
    ties: int


class CompletionServer(Continuations):
    """A server with one model. kind: of its API, for messages."""

    kind: str

    def __init__(self, address: str, tokenizer: Tokenizer, config: ServerConfig):
        """Asks for its models. Raises ServerError where none answers, or another model than `config.model` does."""
        self.http, self.tokenizer, self.config = JsonServer.at(address, config), tokenizer, config
        self.ties = 0
        self.model, self._max_length = self._chosen()

    @property
    def name(self) -> str:
        """Kind and address, as the user gives them."""
        return f"{self.kind}:{self.http.url}"

    @property
    def note(self) -> str:
        """What a reader of its results must know, one line."""
        ties = f"; {self.ties} tokens shared the largest log-probability with another one" if self.ties else ""
        return f"{self.name}: model {self.model}; prompts are sent anew for every candidate{ties}"

    @property
    def max_length(self) -> int | None:
        """The longest sequence, where the server says it; None: unknown."""
        return self._max_length

    def likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """See Continuations. Raises ServerError, and EpisodeError for an empty context or continuation."""
        for context, continuation in pairs:
            if not len(context) or not len(continuation):
                raise EpisodeError("continuation", "no token", "at least one token before it, and one to score")
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for lo in range(0, len(pairs), self.config.batch):
            part = pairs[lo : lo + self.config.batch]
            prompts = [[*_listed(context), *_listed(continuation)] for context, continuation in part]
            answers = self._choices(self.score_request(prompts), len(part))
            for (_, continuation), ids, answer in zip(part, prompts, answers, strict=True):
                forced = self._read(self.forced, answer, ids, len(continuation))
                self.ties += forced.ties
                found.append((forced.likelihood, forced.right))
        return found

    def greedy(
        self, prompts: Sequence[Ids], steps: Sequence[int], done: Callable[[int, list[int]], bool]
    ) -> list[list[int]]:
        """See Continuations. The server decodes all steps; what follows `done` is cut off. Raises ServerError."""
        found: list[list[int]] = []
        for lo in range(0, len(prompts), self.config.batch):
            part = [_listed(prompt) for prompt in prompts[lo : lo + self.config.batch]]
            request = self.greedy_request(part, max(steps[lo : lo + len(part)]))
            for i, answer in enumerate(self._choices(request, len(part)), start=lo):
                ids = self._read(self.decoded, answer)[: steps[i]]
                stop = next((n for n in range(1, len(ids)) if done(i, ids[:n])), len(ids))
                found.append(ids[:stop])
        return found

    @abstractmethod
    def score_request(self, prompts: list[list[int]]) -> dict[str, Any]:
        """The body that asks for log-probabilities of prompts, without the model's name."""

    @abstractmethod
    def forced(self, choice: dict[str, Any], ids: list[int], n: int) -> Forced:
        """The last n of the prompt's ids in one choice of the answer. Raises WrongAnswer."""

    @abstractmethod
    def greedy_request(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        """The body that asks for greedy continuations, without the model's name."""

    @abstractmethod
    def decoded(self, choice: dict[str, Any]) -> list[int]:
        """The ids of a greedy continuation. Raises WrongAnswer."""

    def _chosen(self) -> tuple[str, int | None]:
        """The model's name, and its longest sequence where it is said."""
        rows = self.http.get("/v1/models").get("data")
        known = {str(row.get("id")): row for row in rows or () if isinstance(row, dict)}
        wanted = self.config.model
        if not known or (wanted is not None and wanted not in known):
            given = "no model" if wanted is None else f"no model {wanted}"
            raise ServerError(f"{self.name}: {given}; allowed: {listed(known) or 'a server that lists its models'}")
        name = next(iter(known)) if wanted is None else wanted
        limit = known[name].get("max_model_len")
        return name, limit if isinstance(limit, int) else None

    def _choices(self, request: dict[str, Any], n: int) -> list[dict[str, Any]]:
        """The choices of an answer in the order of the prompts."""
        answer = self.http.post(PATH, {"model": self.model, **request})
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != n:
            raise ServerError(f"{self.name}: no answer to each of {n} prompts; allowed: a completions API")
        return sorted(choices, key=lambda choice: choice.get("index", 0))

    def _read(self, parse: Callable[..., Any], *args: Any) -> Any:
        """What `parse` finds in a choice. Raises ServerError where the choice is not as the API says."""
        try:
            return parse(*args)
        except WrongAnswer as error:
            raise ServerError(f"{self.name}: {error}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            fault = f"an answer that cannot be read ({type(error).__name__}: {error})"
            raise ServerError(
                f"{self.name}: {fault}; allowed: log-probabilities as of a {self.kind} server"
            ) from None


def _listed(ids: Ids) -> list[int]:
    return [int(i) for i in ids]


def id_of(token: str) -> int | None:
    """The id in `token_id:17`, as servers write tokens that have no text of their own; None for another text."""
    head, _, number = token.rpartition(":")
    return int(number) if head == "token_id" and number.isdigit() else None


def wrong_count(read: int, sent: int, asked: str) -> WrongAnswer:
    """The error for log-probabilities of another number of tokens than the prompt has. asked: the setting that the
    server should know."""
    tokens = f"{abs(read - sent)} token{'s' * (abs(read - sent) > 1)}"
    why = f": the server {f'puts {tokens} in front' if read > sent else f'drops {tokens}'}" if read else ""
    return WrongAnswer(
        f"log-probabilities of {read} tokens for a prompt of {sent}{why}; allowed: a server that takes ids as they "
        f"are, and knows {asked}"
    )
