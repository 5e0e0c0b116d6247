"""A W&B server on this machine for tests: openwandb, which answers W&B's own client, behind a counter of what comes.

openwandb appends whatever rows it is sent. W&B's servers keep a run's history as numbered lines, and tell a client that
resumes a run how many there are: the counter does both, so that rows that are sent twice, and rows that are replaced,
are seen as W&B would have them. Run as a script: port and folder.
"""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "local" + "0" * 40


@dataclass
class Received:
    """What a server has of one run. lines: its history by number; sent: rows that came, replaced ones counted again."""

    group: str = ""
    job_type: str = ""
    name: str = ""
    sweep: str = ""
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    sent: int = 0
    summary: dict[str, Any] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    preempting: bool = False
    made: list[tuple[str, str, str]] = field(default_factory=list)
    """Artifacts that came with it: kind, name, digest."""
    used: list[tuple[str, str, str]] = field(default_factory=list)
    """Artifacts that it has used."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, in order."""
        return [self.lines[number] for number in sorted(self.lines)]


def start(folder: Path) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """A server that keeps its data in a folder, and the environment that leads to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    server = subprocess.Popen([sys.executable, __file__, str(port), str(folder)])
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            alive = server.poll() is None and time.monotonic() < deadline
            assert alive, "the server does not start"
            time.sleep(0.1)
    return server, {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": KEY, "WANDB_SILENT": "true"}


def received(folder: Path) -> dict[str, Received]:
    """What has come so far, by the ids of the runs."""
    runs: dict[str, Received] = {}
    known: dict[str, tuple[str, str, str]] = {}
    for line in (folder / "requests.jsonl").read_text().splitlines():
        path, body, *answer = json.loads(line)
        _take(runs, path, body)
        _take_artifact(runs, known, body, *answer)
    return runs


def _take_artifact(
    runs: dict[str, Received], known: dict[str, Any], body: dict[str, Any], answer: Any = None
) -> None:
    """Artifacts that are used are made without a run. known: by the ids that the server has given."""
    values = body.get("variables") or {}
    if body.get("operationName") == "CreateArtifact" and answer:
        given = values["input"]
        made = given["artifactTypeName"], given["artifactCollectionName"], given["digest"]
        known[answer["data"]["createArtifact"]["artifact"]["id"]] = made
        if given["runName"] is not None:
            runs[given["runName"]].made.append(made)
    elif body.get("operationName") == "UseArtifact":
        given = values.get("input") or values
        runs[given["runName"]].used.append(known[given["artifactID"]])


def _take(runs: dict[str, Received], path: str, body: dict[str, Any]) -> None:
    values = body.get("variables") or {}
    if body.get("operationName") == "UpsertBucket" and values.get("name"):
        run = runs.setdefault(values["name"], Received())
        run.group, run.job_type = values.get("groupName") or run.group, values.get("jobType") or run.job_type
        run.name, run.sweep = values.get("displayName") or run.name, values.get("sweep") or run.sweep
    if not path.endswith("/file_stream"):
        return
    run = runs.setdefault(path.split("/")[-2], Received())
    for name, part in (body.get("files") or {}).items():
        if name == "wandb-history.jsonl":
            run.sent += len(part["content"])
            run.lines |= {part["offset"] + i: json.loads(line) for i, line in enumerate(part["content"])}
        elif name == "wandb-summary.json":
            run.summary = json.loads(part["content"][-1])
    run.preempting = run.preempting or bool(body.get("preempting"))
    if body.get("complete"):
        run.exit_codes.append(int(body["exitcode"]))


def _serve(port: int, folder: Path) -> None:
    settings = {"DATA_DIR": str(folder), "PORT": str(port), "HOST": "127.0.0.1", "LOG_LEVEL": "ERROR"}
    os.environ |= {f"OPENWANDB_{name}": value for name, value in settings.items()}
    import uvicorn
    from openwandb.server import app

    runs: dict[str, Received] = {}
    log = open(folder / "requests.jsonl", "a", buffering=1)  # noqa: SIM115

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        """The server, with its answers to clients that resume as W&B would give them."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await app(scope, receive, send)
            return
        parts: list[bytes] = []
        message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            parts.append(message.get("body", b""))
        given = b"".join(parts)
        answers: list[Any] = []

        try:
            body = json.loads(given)
        except ValueError:
            body = {}
        making = isinstance(body, dict) and body.get("operationName") == "CreateArtifact"
        if making and body["variables"]["input"]["runName"] is None:  # openwandb makes none without a run
            own = {**body["variables"]["input"], "runName": "nobody"}
            given = json.dumps({**body, "variables": {**body["variables"], "input": own}}).encode()
            scope = {**scope, "headers": [(k, v) for k, v in scope["headers"] if k.lower() != b"content-length"]}

        async def again() -> Any:
            return {"type": "http.request", "body": given, "more_body": False}

        async def keep(message: Any) -> None:
            answers.append(message)

        await app(scope, again, keep)
        if isinstance(body, dict):
            answer = [json.loads(b"".join(message.get("body", b"") for message in answers[1:]))] if making else []
            log.write(json.dumps([scope["path"], body, *answer]) + "\n")
            _take(runs, scope["path"], body)
            if body.get("operationName") == "RunResumeStatus":
                answers = _with_history(answers, runs.get(body["variables"]["name"], Received()))
        for message in answers:
            await send(message)

    uvicorn.run(counted, host="127.0.0.1", port=port, log_level="error")


def _with_history(answers: list[Any], run: Received) -> list[Any]:
    """openwandb's answer to a client that resumes a run, with the number of its rows, the last row and the summary."""
    body = json.loads(b"".join(message.get("body", b"") for message in answers[1:]))
    bucket = body["data"]["model"] and body["data"]["model"]["bucket"]
    if bucket:
        tail = json.dumps([json.dumps(row) for row in run.rows[-1:]])
        bucket |= {"historyLineCount": len(run.lines), "historyTail": tail, "summaryMetrics": json.dumps(run.summary)}
        bucket |= {"eventsTail": "[]", "wandbConfig": json.dumps({"t": 1} if run.lines else {})}  # t: it has begun
    data = json.dumps(body).encode()
    headers = [(k, v) for k, v in answers[0]["headers"] if k.lower() != b"content-length"]
    start = {**answers[0], "headers": [*headers, (b"content-length", str(len(data)).encode())]}
    return [start, {"type": "http.response.body", "body": data}]


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
