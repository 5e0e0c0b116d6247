"""Tasks by the name used in configs. A new one is a file and a line here."""

TASKS = {
    "niah": "lcprobe.tasks.niah:NIAH",
    "vt": "lcprobe.tasks.vt:VT",
    "cwe": "lcprobe.tasks.cwe:CWE",
    "fwe": "lcprobe.tasks.fwe:FWE",
}
