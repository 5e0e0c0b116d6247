"""Event files of TensorBoard, through torch's writer (pip install 'lcprobe[tensorboard]'):
`tensorboard --logdir runs/NAME/tensorboard`."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lcprobe.studies.tracking.also.guarded import Guarded
from lcprobe.studies.tracking.eval_values import LENGTH
from lcprobe.studies.tracking.wandb_tracker import WandbRun
from lcprobe.tracking import Artifact

AXES = ("tokens", LENGTH)
"""What a row may have as its place on the x-axis."""


class TensorBoardTracker(Guarded):
    """The scalars and figures of a run, over tokens or length. Each time a run goes on, a new event file with all its
    rows replaces the old ones."""

    title = "TensorBoard"

    def __init__(self, run: WandbRun, rows: Sequence[Mapping[str, float | int]] = ()):
        self._writer: Any = None
        self._tokens = -1
        self._try(lambda: self._open(run))
        for row in rows:
            self.metrics(row)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Scalars at their tokens or length."""
        axis = next((name for name in AXES if name in values), None)
        if axis is not None:
            self._try(lambda: self._add(values, axis, int(values[axis])))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to do: TensorBoard has no tables, and the report has CSV files."""

    def figure(self, name: str, png: Path) -> None:
        """A picture."""

        def add() -> None:
            import numpy as np
            from PIL import Image

            with Image.open(png) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(name, pixels, dataformats="HWC")

        self._try(add)

    def page(self, name: str, html: Path) -> None:
        """Where it is: TensorBoard shows no HTML."""
        self._try(lambda: self._writer.add_text(name, str(html)))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Numbers as scalars, at the end of training."""
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._try(lambda: self._add(numbers, None, max(0, self._tokens)))

    def artifact(self, artifact: Artifact) -> None:
        """Nothing to do: the files are on disk."""

    def uses(self, artifact: Artifact) -> None:
        """Nothing to do: status.json has the digests."""

    def alert(self, title: str, text: str) -> None:
        """A text."""
        self._try(lambda: self._writer.add_text("alert", f"{title}: {text}", max(0, self._tokens)))

    def finish(self, error: BaseException | None = None) -> None:
        """Write what is left."""
        self._try(lambda: self._writer.close())
        self.off = True

    def _open(self, run: WandbRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = folder_of(run)
        before = [*folder.glob("events.out.tfevents.*")]
        self._writer = SummaryWriter(str(folder), purge_step=0)  # for a TensorBoard that has read the old files
        for path in before:
            path.unlink(missing_ok=True)

    def _add(self, values: Mapping[str, float | int], axis: str | None, at: int) -> None:
        if axis == "tokens":
            if at < self._tokens:
                self._go_back(at)
            self._tokens = at
        for name, value in values.items():
            if name not in (axis, "step"):
                self._writer.add_scalar(name, value, at)

    def _go_back(self, tokens: int) -> None:
        """Have TensorBoard forget what came from here on."""
        events = import_module("tensorboard.compat.proto.event_pb2")
        start = events.SessionLog(status=events.SessionLog.START)
        self._writer.file_writer.add_event(events.Event(session_log=start), tokens)


def folder_of(run: WandbRun) -> Path:
    """The folder of a run's event files."""
    kind = "" if run.job_type in ("train", "sweep") else f"-{run.job_type}"
    return Path(run.study) / "tensorboard" / f"{run.run or 'study'}{kind}"
