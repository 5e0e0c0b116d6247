"""Errors that a user can act on, each with an exit code and one line: what was given, what is allowed.

0 done, 2 bad input, 4 numerics stopped the run, 5 no valid checkpoint, 6 locked by another process, 74 I/O,
75 stopped early and resumable, 130 interrupted. Anything else is a defect and keeps its traceback.
"""

import difflib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

MAX_SHOWN, MAX_SHOWN_KEY = 76, 300
"""Characters of a text that `shown` has room for, and of a key."""
MAX_LISTED, MAX_LISTED_NAME = 1000, 80
"""Characters of a list of names in an error, and of one of them, at most."""

TOLD_TO_END = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""Signals that tell a process to end: of schedulers before they end a job, and of a terminal that closes."""


class LcprobeError(Exception):
    """Base of everything that ends a command with a message instead of a traceback."""

    exit_code = 2


class Said(str):
    """What is wrong, in words, where no value is: `an unknown key`."""


class ConfigError(LcprobeError):
    """A setting that cannot work. key: its dotted name, as the user wrote it or should have."""

    def __init__(self, key: str, given: object, allowed: str, near: str | None = None):
        self.key, self.given, self.allowed, self.near = key, given, allowed, near
        hint = f"; did you mean {near!r}?" if near else ""
        where = key if len(key) <= MAX_SHOWN_KEY else f"{key[:MAX_SHOWN_KEY]}..."
        what = given if isinstance(given, Said) else f"given {shown(given)}"
        super().__init__(f"{where}: {what}; allowed: {allowed}{hint}")


class NotHereError(ConfigError):
    """A member of a registry's family (`fla:GatedDeltaNet`) whose package or device this machine lacks."""


class EpisodeError(ConfigError):
    """An episode that cannot be built (too short, a format that the tokenizer cannot represent, ...)."""


class DataError(LcprobeError):
    """Data that is missing, damaged, or different from its manifest."""


class SetAsideError(DataError):
    """A damaged file, which is set aside: the command that makes records does again what was in it."""

    exit_code = 75


class ReadError(DataError):
    """A file that the system does not give now, whatever is in it: the same command may read it later."""

    exit_code = 74


class NoAccessError(ReadError):
    """A file that this user cannot read until something is changed: its rights, its name, a link."""

    exit_code = DataError.exit_code


class NumericsError(LcprobeError):
    """Training stopped because gradients were not finite."""

    exit_code = 4


class CheckpointError(LcprobeError):
    """No valid checkpoint where one is needed."""

    exit_code = 5


class ServerError(LcprobeError):
    """A server, of answers to probes, of W&B, or the Hugging Face hub, is gone, or answers otherwise than its API
    says. Names its address."""

    exit_code = 74


class LockedError(LcprobeError):
    """Another process owns the folder."""

    exit_code = 6


class StoppedEarly(LcprobeError):
    """Stopped by a signal at the end of a step with everything saved: the same command resumes."""

    exit_code = 75


class StoppedUnsaved(OSError):
    """Stopped by a signal or by train.max_hours, and the checkpoint could not be written."""


class LoaderError(LcprobeError):
    """A process that makes training batches is gone; what was saved stays, and the same command resumes."""

    exit_code = 75


class PeerError(LcprobeError):
    """Another process of the run is gone or does not answer; what was saved stays, and the same command resumes."""

    exit_code = 75


class MemoryLimitError(LcprobeError):
    """Something does not fit into memory. Names settings with which it would."""


class Terminated(KeyboardInterrupt):
    """The process was told to end: like Ctrl-C, it passes every `except Exception`. name: of the signal."""

    def __init__(self, name: str):
        self.name = name
        super().__init__(f"stopped by {name}")


_said: list[BaseException] = []
"""Errors that another process says."""


def leave_to_another(error: BaseException) -> None:
    """Another process of the run has the same error and says it: `run_command` prints nothing here."""
    _said.append(error)


def is_left_to_another(error: BaseException) -> bool:
    """Whether another process says this error."""
    return any(error is one for one in _said)


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that ends with this error; 1 for a defect."""
    if isinstance(error, LcprobeError):
        return error.exit_code
    if isinstance(error, Terminated):
        return StoppedEarly.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 74 if isinstance(error, OSError) else 1


def line_of(error: LcprobeError | KeyboardInterrupt) -> str:
    """The line that a command ends with."""
    if isinstance(error, LcprobeError):
        return f"error: {' '.join(str(error).split())}"
    what = str(error) if isinstance(error, Terminated) else "interrupted"
    return f"{what}: finished work is kept; the same command resumes"


def error_of_signal(number: int) -> KeyboardInterrupt:
    """What a signal raises in a command."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(signal.Signals(number).name)


def ending(code: int) -> str:
    """What an exit code of a process says in words; below 0 for a signal."""
    if code >= 0:
        return f"ended with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (mostly for memory)" if -code == signal.SIGKILL else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of a device or of the machine, was not enough."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """TOLD_TO_END raise Terminated in the block, so that locks are
    released. A SIGHUP that is ignored, as under nohup, stays ignored."""

    def end(number: int, frame: object) -> None:
        raise error_of_signal(number)

    before = {}
    for number in TOLD_TO_END:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            before[number] = signal.signal(number, end)
        except ValueError:  # not in the main thread: handlers cannot be installed
            break
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


NO_ACCESS = frozenset(
    (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
)
"""What the system says of files that stay unreadable until somebody changes something."""


def read_error(what: object, error: OSError, allowed: str = "") -> ReadError:
    """The error for a file that the system does not give. what: the file, and as what it is read."""
    kind = NoAccessError if error.errno in NO_ACCESS else ReadError
    reason = error.strerror or next(iter(str(error).splitlines()), "") or type(error).__name__
    return kind(f"{what}: not readable ({reason})" + (f"; allowed: {allowed}" if allowed else ""))


def shorten(text: str, limit: int) -> str:
    """A text cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shown(value: object, limit: int = 80) -> str:
    """A value as one printable line, cut to `limit` characters."""
    text = repr(value) if not isinstance(value, type) else value.__name__
    text = " ".join(text.split())
    return shorten(text, limit)


def listed(names: Iterable[object], separator: str = " | ") -> str:
    """Names as an error lists them: the first ones, and how many more there are."""
    texts = [text if len(text) <= MAX_LISTED_NAME else f"{text[:MAX_LISTED_NAME]}..." for text in map(str, names)]
    first, size = 0, 0
    while first < len(texts) and (first < 1 or size + len(texts[first]) <= MAX_LISTED):
        size += len(texts[first]) + len(separator)
        first += 1
    more = f" and {len(texts) - first} more" if first < len(texts) else ""
    return f"{separator.join(texts[:first])}{more}"


def nearest_name(name: object, allowed: Iterable[str]) -> str | None:
    """The allowed name closest to a mistyped one; None when none is close."""
    by_lower = {one.lower(): one for one in allowed}
    matches = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def unknown_name(key: str, given: object, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that is not among the allowed ones."""
    names = [str(name) for name in allowed]
    return ConfigError(key, given, listed(names) or "nothing here", nearest_name(given, names))


def require(key: str, given: object, holds: bool, allowed: str) -> None:
    """Raise ConfigError unless `holds`; `check()` methods consist of such rules."""
    if not holds:
        raise ConfigError(key, given, allowed)


def require_names(key: str, names: Sequence[str], allowed: Collection[str]) -> None:
    """Raise ConfigError for an empty list, and for a name that is not among the allowed ones."""
    require(key, list(names), len(names) > 0, listed(allowed))
    for name in names:
        if name not in allowed:
            raise unknown_name(key, name, allowed)


@contextmanager
def inside(key: str) -> Iterator[None]:
    """Prefix the keys of errors in the block: `head_dim` becomes `model.mixers.mamba2.head_dim`."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(f"{key}.{error.key}", error.given, error.allowed, error.near) from None


class _Said(Exception):
    """An error that another process says."""

    def __init__(self, error: BaseException):
        self.error = error
        super().__init__()


def _said_here(body: Callable[[], int | None]) -> int:
    try:
        return body() or 0
    except BaseException as error:
        if is_left_to_another(error):
            raise _Said(error) from None
        raise


def run_command(body: Callable[[], int | None]) -> int:
    """Run a command's body and turn its outcome into an exit code; user errors become one line on stderr, of
    several processes that have it one's."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may have what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    _said.clear()
    try:
        with ended_by_signals():
            return _said_here(body)
    except _Said as silent:
        if isinstance(silent.error, LcprobeError | KeyboardInterrupt):
            _wait_until_said(line_of(silent.error))
        return exit_code_of(silent.error)
    except (LcprobeError, KeyboardInterrupt) as error:
        _say(line_of(error))
        return exit_code_of(error)
    except BrokenPipeError:  # the reader of the pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        reason, where = (
            error.strerror or " ".join(str(error).split()) or type(error).__name__,
            f": {str(error.filename)[:MAX_SHOWN_KEY]}" if error.filename else "",
        )
        _say(f"error: input/output: {reason}{where}")
        return 74


def _wait_until_said(line: str) -> None:
    from lcprobe.locks.said_once import wait_until_said  # here, as below

    wait_until_said(line)


def _say(line: str) -> None:
    """Print a line, once where several processes of a machine have it."""
    from lcprobe.locks.said_once import is_said_by_another  # here: it stands on locks, which stand on this

    if not is_said_by_another(line):
        print(line, file=sys.stderr)
