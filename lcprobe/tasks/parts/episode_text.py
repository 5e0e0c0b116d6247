"""The characters of an episode: the same for every tokenizer that the same text was encoded with, so that a digest of
them proves it."""

from typing import NamedTuple

import numpy as np

from lcprobe.files import digest_bytes
from lcprobe.tasks.episode import Episode
from lcprobe.tasks.text.tokenizer import Tokenizer


class EpisodeText(NamedTuple):
    """characters: of prompt and answers, those of separate questions not counted. digest: 32 hexadecimal digits, of
    the text and of every separate question."""

    characters: int
    digest: str


def episode_text(episode: Episode, tokenizer: Tokenizer) -> EpisodeText:
    """The characters that an episode's ids stand for, BOS apart."""
    text = tokenizer.text_of(without_bos(episode.ids, tokenizer))
    separate = [tokenizer.text_of(query.own) for query in episode.queries if query.own is not None]
    parts = [part.encode("utf-8", "surrogatepass") for part in (text, *separate)]
    sizes = np.array([len(part) for part in parts], dtype="<i8")
    return EpisodeText(len(text), digest_bytes(sizes.tobytes(), *parts)[:32])


def without_bos(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """(n,) ids without the BOS token at their start."""
    return ids[1:] if tokenizer.bos_id is not None and len(ids) and ids[0] == tokenizer.bos_id else ids
