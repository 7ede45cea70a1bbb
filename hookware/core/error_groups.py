"""Errors that are the same but for their numbers, put together."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hookware.core.overview import ErrorGroup

_MOST_PATTERN: Final = 200
_MOST_LISTED: Final = 10
_VARIABLE = re.compile(
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b|\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{12,}\b|\d+(?:[.,:]\d+)*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTask:
    """A task that has an error, as far as grouping needs it; `at_us`: when it died, or is tried again."""

    task_id: int
    queue_name: str
    url: str
    is_dead: bool
    error: str
    status: int | None
    reason: str | None
    at_us: int


def pattern_of(error: str) -> str:
    """Give what an error has in common with others of its kind: its first line, numbers and ids left out."""
    line = next((line.strip() for line in error.splitlines() if line.strip()), "")
    return _VARIABLE.sub("#", line[: 2 * _MOST_PATTERN])[:_MOST_PATTERN]


def grouped(tasks: Iterable[FailedTask], limit: int) -> list[ErrorGroup]:
    """Group tasks by the patterns of their errors and by what was answered; the largest groups first."""
    groups: dict[tuple[str, int | None], list[FailedTask]] = {}
    for task in tasks:
        groups.setdefault((pattern_of(task.error), task.status), []).append(task)
    made = [_group(pattern, some) for (pattern, _status), some in groups.items()]
    return sorted(made, key=lambda group: (-group.count, group.pattern))[:limit]


def _group(pattern: str, tasks: list[FailedTask]) -> ErrorGroup:
    latest = max(tasks, key=lambda task: (task.at_us, task.task_id))
    urls = Counter(task.url.partition("?")[0] for task in tasks)
    return ErrorGroup(
        pattern=pattern,
        sample=latest.error,
        dead_count=sum(task.is_dead for task in tasks),
        retrying_count=sum(not task.is_dead for task in tasks),
        task_ids=tuple(task.task_id for task in tasks[:_MOST_LISTED]),
        queue_names=tuple(sorted({task.queue_name for task in tasks})),
        urls=tuple(url for url, _count in urls.most_common(_MOST_LISTED)),
        statuses=tuple(sorted({task.status for task in tasks if task.status is not None})),
        reasons=tuple(sorted({task.reason for task in tasks if task.reason is not None})),
        latest_us=latest.at_us,
    )
