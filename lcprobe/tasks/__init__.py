"""Tasks by the name used in configs. A new one is one file and one line here."""

from lcprobe.choices import Registry

TASKS = Registry(
    "lcprobe.tasks.assembly:Task",
    {
        "niah": "lcprobe.tasks.niah:NIAH",
        "mqar": "lcprobe.tasks.mqar:MQAR",
        "phonebook": "lcprobe.tasks.phonebook:PhoneBook",
        "copying": "lcprobe.tasks.copying:Copying",
        "ordered": "lcprobe.tasks.ordered:Ordered",
        "semantic": "lcprobe.tasks.semantic:Semantic",
        "state_tracking": "lcprobe.tasks.state_tracking:StateTracking",
        "vt": "lcprobe.tasks.vt:VT",
        "cwe": "lcprobe.tasks.cwe:CWE",
        "fwe": "lcprobe.tasks.fwe:FWE",
        "qa": "lcprobe.tasks.qa:QA",
    },
)
