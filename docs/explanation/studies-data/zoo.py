"""The table of an evaluated study of architectures, zoo.json and zoo.png, which it writes here: `zoo.py runs/zoo`."""

import datetime
import json
import platform
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

import lcprobe

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
figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
for name in names:
    own = [row for row in rows if row["architecture"] == name]
    kept = [row for row in own if row["key look-up"] == "acquired"]
    means = [
        sum(row["accuracy"][i][1] / row["accuracy"][i][2] for row in own) / len(own) for i in range(len(lengths))
    ]
    reach = [f"{'≥ ' * row['is at least']}{row['effective length']:.0f}" for row in kept if row["effective length"]]
    shown = [f"{mean:.2f}" for mean in means]
    print(f"| {name} | {own[0]['lr']:g} | {len(kept)} of {len(own)} | {' | '.join(shown)} | {', '.join(reach)} |")
    for i, row in enumerate(kept):
        color, label = f"C{names.index(name) % 10}", name if i == 0 else None
        style = "-" if names.index(name) < 10 else "--"
        axes[0].plot(lengths, [k / n for _, k, n, _, _ in row["accuracy"]], style, color=color, label=label)
        axes[1].plot([p[0] for p in row["distance"]], [p[1] for p in row["distance"]], style, color=color)
for axis, what in zip(axes, ("length, tokens", "distance of the needle, tokens"), strict=True):
    axis.set_xscale("log", base=2)
    axis.set_xlabel(what)
    axis.axhline(0.25, color="grey", linestyle=":")
axes[0].set_ylabel("exact match, 4 keys")
if axes[0].lines[1:]:
    axes[0].legend(fontsize=7)
figure.tight_layout()
figure.savefig(HERE / "zoo.png", dpi=120)
