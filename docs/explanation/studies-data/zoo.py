"""The table of an evaluated study of architectures, zoo.json and zoo.png, which it writes here: `zoo.py runs/zoo`."""

import datetime
import json
import platform
import sys
from pathlib import Path

import pandas as pd
import torch

import lcprobe
from lcprobe.analysis.report.charts.grammar import (
    curves,
    figure,
    horizontal,
    panel,
    share_axis,
    shown_number,
    shown_word,
    styles_of,
    tokens_axis,
)
from lcprobe.analysis.report.charts.render import render, save

HERE = Path(__file__).parent
study = lcprobe.load_study(sys.argv[1])
tables = {name: rows.query("task == 'multikey'") for name, rows in study.tables().items() if "control" in rows}
gates = study.tables()["gates"].set_index("model")
rows = []
for name, run in study.runs.items():
    curve = tables["extrapolation"].query("model == @name and control == 'none'").sort_values("length")
    distance = tables["distance"].query("model == @name").sort_values("median")
    gate = gates.loc[[name]].query("control == 'none'").dropna(subset=["key_lookup"]).iloc[-1]
    first = curve.iloc[0]
    rows.append(
        {
            "architecture": run.config.study.architecture,
            "seed": run.config.seed,
            "parameters": run.status["params"],
            "lr": run.config.train.lr,
            "tokens": run.status["tokens"],
            "seconds": run.status["seconds"],
            "key look-up": gate["key_lookup"],
            "effective length": None if pd.isna(first["effective_length"]) else first["effective_length"],
            "is at least": bool(first["effective_is_at_least"]),
            "note": first["effective_note"] if isinstance(first["effective_note"], str) else "",
            "accuracy": [[int(r.length), int(r.k), int(r.n), r.low, r.high] for r in curve.itertuples()],
            "distance": [[r.median, r.accuracy, r.low, r.high] for r in distance.itertuples()],
        }
    )
facts = {
    "title": "architectures at 135,640 parameters x 3 seeds, 0.6 M tokens at 128; one of four keys at 64 to 1,024",
    "command": "python train.py configs/study/zoo.yaml && python evaluate.py runs/zoo",
    "date": datetime.date.today().isoformat(),
    "python": platform.python_version(),
    "torch": torch.__version__,
    "seconds are": "of a run, one thread, two runs at a time beside other work",
}
(HERE / "zoo.json").write_text(json.dumps(facts | {"rows": rows}, indent=1, default=float) + "\n")

names = list(dict.fromkeys(row["architecture"] for row in rows))
lengths = [point[0] for point in rows[0]["accuracy"]]
print(f"| architecture | lr | acquired by | {' | '.join(map(str, lengths))} | effective length |")
print("|---" * (len(lengths) + 4) + "|")
drawn = {"length": [], "distance": []}
for name in names:
    own = [row for row in rows if row["architecture"] == name]
    kept = [row for row in own if row["key look-up"] == "acquired"]
    means = [
        sum(row["accuracy"][i][1] / row["accuracy"][i][2] for row in own) / len(own) for i in range(len(lengths))
    ]
    reach = [f"{'≥ ' * row['is at least']}{row['effective length']:.0f}" for row in kept if row["effective length"]]
    shown = [f"{mean:.2f}" for mean in means]
    print(f"| {name} | {own[0]['lr']:g} | {len(kept)} of {len(own)} | {' | '.join(shown)} | {', '.join(reach)} |")
    for row in kept:
        run = {"architecture": name, "seed": row["seed"]}
        drawn["length"] += [{**run, "at": length, "value": k / n} for length, k, n, _, _ in row["accuracy"]]
        drawn["distance"] += [{**run, "at": median, "value": value} for median, value, _, _ in row["distance"]]
shown = [name for name in names if any(point["architecture"] == name for point in drawn["length"])]
panels = []
for title, points in drawn.items():
    x = tokens_axis("at", f"{title} (tokens)", [point["at"] for point in points])
    tooltip = [shown_word("architecture", "architecture"), shown_number("value", "exact match")]
    parts = {"field": "architecture", "seeds": points, "bands": False, "points": False}
    lines = curves([], styles_of(shown), x, share_axis(title="exact match, 4 keys"), tooltip, **parts)
    panels.append(panel([*horizontal(0.25, "chance"), *lines], width=340, title=f"by {title}"))
save(render(figure(panels, "Runs that acquired key look-up", 2)), HERE / "zoo.png")
