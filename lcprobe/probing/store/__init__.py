"""The records store: finished units of work as Parquet files, of one process or of many.

contract.py     what the runner asks of a store, and a unit's id        memory.py      one in memory
disk.py         one in a folder, which processes and machines share
unit_file.py    the file of a unit: Parquet that notices any changed byte
packs.py        files with many units, which compaction.py makes of the small ones
catalog.py      which model, task and length a unit is of, without its file
journal.py      batches of what is in progress
versions.py     versions of the columns, and how records of earlier ones become today's
"""

from lcprobe.probing.store.compaction import Compacted, compact
from lcprobe.probing.store.contract import RecordStore, unit_id
from lcprobe.probing.store.disk import Store, text_store
from lcprobe.probing.store.memory import MemoryStore
from lcprobe.probing.store.summary import Summary

__all__ = ["Compacted", "MemoryStore", "RecordStore", "Store", "Summary", "compact", "text_store", "unit_id"]
