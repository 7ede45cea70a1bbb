"""What happened, as lines of JSON: the one format that every campaign writes and the checker reads.

A line is one step of one process, written with a single `write()` to a file opened for appending, so that a kill -9
loses nothing. What a campaign does not know it leaves out, and is then not checked.

    joining       a task has its id, its transaction is open
    alone         the same, in a transaction of its own
    stored        that one has committed
    committed     the task's transaction has committed; `eta`, `queue`, `name` where known; `inside`: its handler
                  writes in hookware's transaction; `within`: so many seconds after its time it has to begin;
                  `backoff`: its shortest and longest wait in seconds and its doublings; `retry_limit`
    rolled_back   it has rolled back
    answered      a client's order was answered: `outcome` is what was asked (commit, undo), `status`, `kept`
    claimed       leased `until`; `deadline` of the task in seconds
    batch         a claim `asked` for so many and `got` so many
    renewed       the lease now ends at `until`
    meddled       something else about the row of a running task was changed
    start, end    of a handler; `mangled`: the task did not arrive as it was sent; `outcome` of an end is ok (2xx, and
                  returned), conflict, cancelled, or anything else
    effect        a row that the handler wrote in hookware's transaction is there
    settled       the answer to a settle: `outcome` is complete, retry, release or die; `accepted`, and `crashed`,
                  `delay`, `due`, `reason`, `by_handler` where they apply
    dropped       another task has its name
    disturbed     something (`why`) keeps the node from its work, until `until`; no node: all of them
    blocked       a handler keeps the node's event loop to itself, until `until`
    clock         the database's clock was set forward or back `by` so many seconds
    killed        the node is gone; `why`
    stop, stopped the node's shutdown; `calm` if nothing disturbed it
    quiet         no more faults from here on
    spun          the node's loop turned in circles, instead of waiting
    left          at the end, `got` rows are left that should not be there
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One step; what its fields mean stands above.

    Times are seconds on one axis for all nodes; `eta`, `due` and the `until` of a lease are by the database's clock,
    which is that axis as long as no `clock` line moves it.
    """

    ev: str
    t: float
    node: int | str = ""
    task: int = 0
    attempt: int = 0
    fence: int = 0
    url: str = ""
    outcome: str = ""
    queue: str = ""
    name: str = ""
    eta: float | None = None
    inside: bool = False
    within: float = 0.0
    backoff: Sequence[float] | None = None
    retry_limit: int | None = None
    asked: int = 0
    got: int = 0
    deadline: float = 0.0
    until: float = 0.0
    accepted: bool = True
    crashed: bool = False
    delay: float = 0.0
    due: float | None = None
    reason: str = ""
    by_handler: bool = False
    status: int | None = None
    kept: bool = False
    mangled: bool = False
    calm: bool = False
    why: str = ""
    by: float = 0.0

    def as_json(self) -> str:
        """Give the line as it stands in a file: what is as by default is left out."""
        said = {name: value for name, default in _DEFAULTS if (value := getattr(self, name)) != default}
        return json.dumps(said)


_DEFAULTS = [(each.name, each.default) for each in fields(Line)]


class History:
    """Writes lines; each is one write to a file opened for appending."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, ev: str, **said: Any) -> None:
        """Append a line; node and time are this process and now, unless they are given."""
        line = Line(**{"ev": ev, "t": time.time(), "node": os.getpid(), **said})
        os.write(self._file, line.as_json().encode() + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._file)


def read_history(path: Path) -> list[Line]:
    """Give the lines written so far in the order of time; one that is cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            lines.append(Line(**json.loads(text)))
        except ValueError:
            continue
    return sorted(lines, key=lambda line: line.t)
