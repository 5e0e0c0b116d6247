"""Tasks by the name used in configs. A new one is a file and a line here."""

TASKS = {
    "niah": "lcprobe.tasks.niah:NIAH",
    "qa": "lcprobe.tasks.qa:QA",
}
