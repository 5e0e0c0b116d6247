"""Write baseline.json from today's code."""

import tempfile
from pathlib import Path

from lcprobe.files import write_json
from tests.baseline import FILE, machine, measure, python_version

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_json(FILE, {"machine": machine(), "python": python_version(), **measure(Path(folder))})
    print(FILE)
