"""Off, offline or online: what the config wants, what the environment allows, whether W&B has credentials, and
whether its server is there.

W&B itself is asked for credentials and server, so that its settings files, WANDB_BASE_URL, netrc, WANDB_API_KEY and
WANDB_IDENTITY_TOKEN_FILE mean here what they mean to it.
"""

import functools
import logging
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lcprobe.config import TrackConfig
from lcprobe.errors import LcprobeError, require

log = logging.getLogger(__name__)
Mode = Literal["off", "offline", "online"]
MODES: tuple[Mode, ...] = ("off", "offline", "online")
"""Of W&B, each with what the one before has."""
WANDB_MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")
"""That its client takes."""
CHECK_SECONDS = 4.0
"""A server that has not answered after this time is not there."""


@dataclass
class _Session:
    """What this process knows of W&B. offline: why nothing is sent until it ends; empty: something is. refused: what
    was said of settings that cannot be used. unusable: studies of which it was said that credentials cannot be
    used, and why."""

    offline: str = ""
    refused: str = ""
    unusable: set[tuple[Path, str]] = field(default_factory=set)


SESSION = _Session()


def wandb_mode(config: TrackConfig, study: Path) -> Mode:
    """The mode for runs of a study. `auto` is online only with credentials, so that nothing ever prompts; without an
    answer from the server everything is offline until the process ends, and a line says how to send it. What
    WANDB_MODE, WANDB_DISABLED and W&B's settings allow is never exceeded. Settings that W&B cannot use switch it
    off."""
    try:
        return _mode(config, study)
    except Exception as error:  # of W&B's settings, or of its installation
        line = fault_of(error)
        if line != SESSION.refused:
            SESSION.refused = line
            log.warning("W&B is off (%s); CSV and records are complete", line)
        return "off"


def _mode(config: TrackConfig, study: Path) -> Mode:
    wanted: Mode = "online" if config.wandb == "auto" else config.wandb
    mode = MODES[min(MODES.index(wanted), MODES.index(_allowed_by_environment()))]
    if mode != "off":
        mode = MODES[min(MODES.index(mode), MODES.index(_allowed_by_settings()))]
    if mode == "online" and config.wandb == "auto":
        found, fault = credentials()
        if fault and (study.resolve(), fault) not in SESSION.unusable:
            SESSION.unusable.add((study.resolve(), fault))
            log.warning("W&B is offline for this study (%s); to send it later: lcprobe sync %s", fault, study)
        mode = "online" if found else "offline"
    if mode != "online":
        return mode
    if not SESSION.offline and (reason := unreachable(server())):
        stay_offline(reason, study)
    return "offline" if SESSION.offline else "online"


def stay_offline(reason: str, study: Path) -> None:
    """Track offline until this process ends, and say so once."""
    if not SESSION.offline:
        SESSION.offline = reason
        log.warning("W&B is offline for this study (%s); to send it later: lcprobe sync %s", reason, study)


def fault_of(error: Exception) -> str:
    """One line on what W&B does not take."""
    kind = "" if isinstance(error, LcprobeError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())[:200]}"


def server() -> str:
    """Address of the W&B server that its settings name."""
    return str(_settings().base_url)


def credentials() -> tuple[bool, str]:
    """Whether W&B has credentials for its server, and what is wrong with those that it cannot use, such as a key of
    the wrong form."""
    import wandb
    from wandb.sdk.lib import wbauth

    try:
        found = wbauth.authenticate_session(host=server(), source="lcprobe", prompt=False, update_session=False)
    except wandb.Error as error:
        return False, f"it cannot use its credentials: {' '.join(str(error).split())[:200]}"
    return found is not None, ""


def unreachable(address: str) -> str:
    """Why a server gives no answer; empty where it gives any. In a thread, since looking up a name has no time limit
    of its own."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_asked(address)), daemon=True)
    thread.start()
    thread.join(CHECK_SECONDS + 1)
    return answers[0] if answers else f"no answer from {address}"


def _asked(address: str) -> str:
    import requests

    try:
        requests.head(address, timeout=CHECK_SECONDS)
    except requests.exceptions.SSLError:
        return ""  # a certificate that only W&B knows: the server is there
    except requests.exceptions.RequestException:
        return f"no answer from {address}"
    return ""


def _settings() -> Any:
    """W&B's settings, of its files and the environment. Raises ConfigError for a WANDB_MODE that W&B does not have,
    and W&B's own errors."""
    clean_environment()
    return _loaded_settings(tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("WANDB_"))))


@functools.lru_cache(1)
def _loaded_settings(environment: tuple[tuple[str, str], ...]) -> Any:
    import wandb

    settings = wandb.Settings()
    settings.update_from_system_settings()
    settings.update_from_env_vars(dict(environment))
    return settings


def clean_environment() -> None:
    """Take what is empty for not set, and WANDB_MODE without blanks and capitals, here and in W&B's own client, which
    fails otherwise. Raises ConfigError for a mode that W&B does not have."""
    for name in [name for name in os.environ if name.startswith("WANDB_") and not os.environ[name].strip()]:
        del os.environ[name]
    if given := os.environ.get("WANDB_MODE"):
        mode = os.environ["WANDB_MODE"] = given.strip().lower()
        require("WANDB_MODE", given, mode in WANDB_MODES, " | ".join(WANDB_MODES))


def _allowed_by_environment() -> Mode:
    """The most that the environment allows."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() not in ("", "0", "false", "no"):
        return "off"
    clean_environment()
    return _allowed_by(os.environ.get("WANDB_MODE", ""))


def _allowed_by_settings() -> Mode:
    """The most that W&B's settings allow: `wandb offline` and `wandb disabled` write there."""
    return _allowed_by(str(_settings().mode))


def _allowed_by(mode: str) -> Mode:
    mode = mode.strip().lower()
    if mode in ("", "online", "run", "shared"):
        return "online"
    return "offline" if mode in ("offline", "dryrun") else "off"
