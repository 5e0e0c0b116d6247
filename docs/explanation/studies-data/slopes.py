"""Effective length against training length, from the records alone: `slopes.py runs/training_length multikey`."""

import sys

import numpy as np

import lcprobe

study, task, points = lcprobe.load_study(sys.argv[1]), sys.argv[2], {}
records = study.records().to_pandas().query("task == @task and control == 'none' and status == 'ok'")
gates = study.tables()["gates"].query("task == @task and task_acquired == 'acquired'")
floor = records["chance"].mean() if records["chance"].mean() < 1 else 0.0
for name in gates["model"]:
    trained = study.runs[name].config.train.context_length
    curve = records[records["model"] == name].groupby("length")["exact"].apply(lambda hits: hits.astype(float).mean())
    level = floor + 0.85 * (curve[curve.index <= trained].max() - floor)
    lengths, accuracy = np.log2(curve.index), curve.to_numpy()
    last = np.flatnonzero(accuracy >= level)[-1]  # the level is held up to here, and never again
    if last + 1 < len(curve):  # it falls within the grid
        share = (accuracy[last] - level) / (accuracy[last] - accuracy[last + 1])
        crossing = lengths[last] + share * (lengths[last + 1] - lengths[last])
        points.setdefault(study.runs[name].config.study.architecture, []).append((np.log2(trained), crossing))
for architecture, pairs in points.items():
    print(f"{architecture}: slope {np.polyfit(*np.transpose(pairs), 1)[0]:.2f}, {len(pairs)} runs")
