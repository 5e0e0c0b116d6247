"""The table of the quickstart over seeds, quickstart.json, which it writes here from evaluated studies of
configs/quickstart.yaml: `quickstart.py runs/quickstart runs/more-seeds`."""

import datetime
import json
import platform
import sys
from pathlib import Path

import pandas as pd
import torch

import lcprobe

HERE = Path(__file__).parent
rows = []
for folder in sys.argv[1:]:
    study = lcprobe.load_study(folder)
    records = study.records().to_pandas().query("control == 'none'")
    for name, run in study.runs.items():
        own = records[records["model"] == name]
        plain = own[(own["haystack"] == "corpus") & (own["value_format"] == "numbers")]
        formats = own[(own["task"] == "multikey") & (own["length"] == run.config.train.context_length)]

        def counts(part: pd.DataFrame, by: str) -> dict[str, list[int]]:
            grouped = part.groupby(by)["exact"]
            return {str(level): [int(exact.sum()), len(exact)] for level, exact in grouped}

        rows.append(
            {
                "architecture": run.config.study.architecture,
                "seed": run.config.seed,
                "lr": run.config.train.lr,
                "parameters": run.status["params"],
                "tokens": run.status["tokens"],
                "multikey": counts(plain[plain["task"] == "multikey"], "length"),
                "sentences": counts(plain[plain["task"] == "sentences"], "length"),
                "crowded": counts(own[own["task"] == "crowded"], "length"),
                "values": counts(formats, "value_format"),
                "haystacks": counts(formats, "haystack"),
            }
        )
rows.sort(key=lambda row: (row["architecture"], row["seed"]))
facts = {
    "title": "the quickstart over seeds: right answers and questions, by length, kind of value and haystack",
    "command": "python train.py configs/quickstart.yaml && python evaluate.py runs/quickstart",
    "date": datetime.date.today().isoformat(),
    "machine": "two shared cores of an AMD EPYC (Zen 4), one thread",
    "python": platform.python_version(),
    "torch": torch.__version__,
}
lines = ",\n  ".join(json.dumps(row) for row in rows)
text = json.dumps(facts | {"rows": []}, indent=1).replace('"rows": []', f'"rows": [\n  {lines}\n ]')
(HERE / "quickstart.json").write_text(text + "\n")
for row in rows:
    shown = [f"{length}: {k}/{n}" for length, (k, n) in row["multikey"].items()]
    print(row["architecture"], row["seed"], *shown, row["values"])
