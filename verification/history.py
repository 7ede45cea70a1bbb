"""What happened, as lines of JSON in a file that all processes of a test append to: nothing is lost by a kill -9."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One step of one process.

    Attributes:
        ev: joining (a task has its id, its transaction is open), alone (the same, in a transaction of its own),
            stored (that one is committed), start, end, settled, killed (at a failpoint).
        node: the process's id.
        t: seconds since the epoch.
        outcome: of an end "ok" or the exception's name, of a settlement the decision, of a kill the failpoint.
    """

    ev: str
    node: int
    t: float
    task: int = 0
    attempt: int = 0
    fence: int = 0
    url: str = ""
    outcome: str = ""


class History:
    """Writes lines; each is one write to a file opened for appending."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, ev: str, **fields: object) -> None:
        line = json.dumps({"ev": ev, **fields, "node": os.getpid(), "t": time.time()})
        os.write(self._file, line.encode() + b"\n")


def read_history(path: Path) -> list[Line]:
    """Give the lines written so far."""
    if not path.exists():
        return []
    return [Line(**json.loads(line)) for line in path.read_bytes().splitlines()]
