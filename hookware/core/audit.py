"""What is kept of what people did: who, as what, to what, when, and what came of it."""

from dataclasses import dataclass, field
from typing import Final

KEPT_US: Final = 90 * 86_400_000_000
"""How long an entry is kept."""

MOST_WHO: Final = 200
MOST_TARGET: Final = 500
MOST_RESULT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that somebody did by hand.

    Attributes:
        id: its place among the others: later ones have larger numbers.
        at_us: when, by the database's clock.
        who: who did it, as far as is known.
        role: what that one was allowed: "read", "operate" or "admin".
        action: what was done, such as "retry" or "purge".
        target: what it was done to: a task, a queue, a cron entry or a filter.
        result: what came of it.
        kept: the row of a task that was deleted, as long as it can be brought back.
    """

    id: int
    at_us: int = 0
    who: str
    role: str
    action: str
    target: str
    result: str = ""
    kept: bytes | None = field(default=None, repr=False)
