"""The measures: each can be run alone, `python -m benchmarks.measures.drain --quick`."""

ALL = ("limits", "drain", "enqueue", "start", "web", "cost", "idle", "growth")
