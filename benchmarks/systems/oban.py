"""Oban for Python: no package index that could be reached had it when this was written, so nothing is known of it."""

import oban  # noqa: F401 - the message of the ImportError is what is wanted

raise ImportError("oban can be installed now, and no adapter was written for it yet")
