"""Addresses of published checkpoints: a local folder, or `hf:ORG/NAME@REVISION` on the Hugging Face hub.

Only weights, configurations and tokenizer files are downloaded: no code, and no pickle where there are safetensors.
"""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.hub import hub_error, hub_is_unreachable, is_offline

HUB = "hf:"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
SMALL = ("*.json", "*.jinja", "lcprobe.yaml", "tokenizer.model", "*.tiktoken", "*vocab*.txt", "merges.txt")
"""Configurations and tokenizers."""
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
"""Kinds of weight files, the first of which a repository has is taken."""


@dataclass(frozen=True)
class Hub:
    """A checkpoint on the hub. revision: commit, tag or branch; None: the one of known.yaml, or the newest."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB}{self.name}" + (f"@{self.revision}" if self.revision else "")


def hub_address(address: str) -> Hub | None:
    """`hf:ORG/NAME@REVISION` in parts; None for another address. Raises ConfigError for a malformed one."""
    if not address.startswith(HUB):
        return None
    name, _, revision = address.removeprefix(HUB).partition("@")
    if not NAME.fullmatch(name) or ("@" in address and not re.fullmatch(r"[\w./-]+", revision)):
        raise ConfigError("address", address, "hf:ORG/NAME, or hf:ORG/NAME@REVISION")
    return Hub(name, revision or None)


def download(hub: Hub) -> Path:
    """The local folder of a checkpoint on the hub: from the cache of huggingface_hub where it is there whole, else
    downloaded. Raises CheckpointError where it is neither there nor to be had, ServerError where network or hub do
    not give it now."""
    from huggingface_hub import HfApi, snapshot_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it would say is in the error
    patterns = [*SMALL, *WEIGHTS]
    try:
        folder = Path(
            snapshot_download(hub.name, revision=hub.revision, allow_patterns=patterns, local_files_only=True)
        )
        if any(_of_kind(os.listdir(folder), kind) for kind in WEIGHTS):
            return folder
    except Exception:  # not in the cache: the library has no common base for its errors
        pass
    if is_offline():
        raise CheckpointError(
            f"{hub}: not in the cache, and HF_HUB_OFFLINE is set; allowed: a cached model or a folder"
        )
    without = f"{hub}: not in the cache and not downloaded"
    allowed = "a model on the hub with a connection, or a local folder"
    if (why := hub_is_unreachable()) is not None:
        raise hub_error(f"{without} ({why}); allowed: {allowed}", None, CheckpointError)
    try:
        files = [entry for entry in HfApi().list_repo_files(hub.name, revision=hub.revision) if "/" not in entry]
        kind = next((kind for kind in WEIGHTS if _of_kind(files, kind)), None)
        if kind is None:
            raise CheckpointError(f"{hub}: no weights ({', '.join(WEIGHTS)}); allowed: a model with weights")
        wanted = [*SMALL, kind]
        return Path(snapshot_download(hub.name, revision=hub.revision, allow_patterns=wanted))
    except CheckpointError:
        raise
    except Exception as error:  # network, rights, unknown names
        reason = next(iter(str(error).strip().splitlines()), "")[:120]
        line = f"{without} ({type(error).__name__}: {reason}); allowed: {allowed}"
        raise hub_error(line, error, CheckpointError) from None


def _of_kind(names: Iterable[str], pattern: str) -> Sequence[str]:
    return [name for name in names if name.endswith(pattern.removeprefix("*"))]
