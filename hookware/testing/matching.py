"""Whether a task is the one that a test has expected, and if none is, what is different about those that there are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hookware.core.codec import CODEC_HEADER, Codec, TaskIdentity
from hookware.core.params import decode_params
from hookware.core.task import LeasedTask
from hookware.core.url import canonical_url, split_url
from hookware.encoding import plain_body
from hookware.env import time_of_id
from hookware.store.base import TaskInfo

_NEAR_SECONDS = 1.0
_MOST_SHOWN = 10
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedTask:
    """A task that was added in a test, as its handler gets it.

    Attributes:
        id, queue_name, name, method, url, headers, body: as they were added.
        eta_us: when it is due, by the test's clock, in microseconds.
        priority, tag, key, fair_key, limit_key: as they were added; of one that has gone, None.
    """

    id: int
    queue_name: str
    name: str | None
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    eta_us: int
    priority: int | None = None
    tag: str | None = None
    key: str | None = None
    fair_key: str | None = None
    limit_key: str | None = None

    @property
    def countdown(self) -> float:
        """How many seconds after it was added it is due."""
        return (self.eta_us - time_of_id(self.id)) / 1e6

    @property
    def params(self) -> dict[str, Any]:
        """What the handler gets: the fields of the form and the query, or the members of the JSON object."""
        content_type = self.headers.get("content-type", "")
        query = split_url(self.url).query_string
        fields = decode_params(self.method, content_type, query, self.body)
        params: dict[str, Any] = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
        if content_type.partition(";")[0].strip().endswith("json"):
            value = json.loads(self.body or b"null")
            params |= value if isinstance(value, dict) else {}
        return params

    @property
    def eta(self) -> datetime:
        """When it is due, in UTC."""
        return datetime.fromtimestamp(self.eta_us / 1e6, UTC)

    def __str__(self) -> str:
        """Describe it in a line."""
        name = f" name={self.name!r}" if self.name else ""
        what = f" params={self.params!r}" if self.params else f" payload={self.body!r}" if self.body else ""
        line = f"{self.method} {self.url} queue_name={self.queue_name!r}{name}{what} eta={self.eta:%Y-%m-%dT%H:%M:%SZ}"
        return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1] + "…"


def added_of(task: TaskInfo | LeasedTask, codec: Codec | None) -> AddedTask:
    """Give a stored task, or one at its first attempt, as it was added."""
    identity = TaskIdentity(id=task.id, queue_name=task.queue_name, name=task.name)
    keys: dict[str, Any] = {}
    if isinstance(task, TaskInfo):
        keys = {"priority": task.priority, "tag": task.tag, "key": task.dedup_key}
        keys |= {"fair_key": task.fair_key, "limit_key": task.limit_key}
    return AddedTask(
        id=task.id,
        queue_name=task.queue_name,
        name=task.name,
        method=task.method,
        url=task.url,
        headers={name: value for name, value in task.headers if name != CODEC_HEADER},
        body=plain_body(codec, task.headers, task.body, identity),
        eta_us=task.eta_us,
        **keys,
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """What a test expects of a task: what it names; the rest may be anything."""

    wishes: Mapping[str, object]

    def differences(self, task: AddedTask) -> list[str]:
        """Say what is different about a task; nothing: it is one."""
        found: list[str] = []
        for name, wanted in self.wishes.items():
            found.extend(_differences(name, wanted, task))
        return found

    def __str__(self) -> str:
        """Say it as the arguments of the call."""
        return ", ".join(f"{name}={wanted!r}" for name, wanted in self.wishes.items()) or "any task"


def _differences(name: str, wanted: Any, task: AddedTask) -> list[str]:
    match name:
        case "params":
            return [
                f"params[{key!r}]: expected {value!r}, got {task.params[key]!r}"
                if key in task.params
                else f"params[{key!r}]: expected {value!r}, got none"
                for key, value in wanted.items()
                if not _same(task.params.get(key, _MISSING), value)
            ]
        case "headers":
            got = {key: task.headers.get(key.lower()) for key in wanted}
            return [f"headers[{k!r}]: expected {v!r}, got {got[k]!r}" for k, v in wanted.items() if got[k] != v]
        case "payload":
            body = wanted.encode() if isinstance(wanted, str) else wanted
            return [] if body == task.body else [f"payload: expected {wanted!r}, got {task.body[:_MOST_CHARACTERS]!r}"]
        case "url":
            path = canonical_url(wanted)
            return (
                []
                if path in (task.url, task.url.partition("?")[0])
                else [f"url: expected {wanted!r}, got {task.url!r}"]
            )
        case "eta":
            is_near = abs(task.eta_us / 1e6 - wanted.timestamp()) <= _NEAR_SECONDS
            return [] if is_near else [f"eta: expected {wanted.isoformat()}, got {task.eta.isoformat()}"]
        case "countdown":
            is_near = abs(task.countdown - float(wanted)) <= _NEAR_SECONDS
            return [] if is_near else [f"countdown: expected {wanted!r}, got {task.countdown:.1f}"]
        case _:
            got = getattr(task, name)
            return [] if got == wanted else [f"{name}: expected {wanted!r}, got {got!r}"]


_MISSING = object()


def _same(got: object, wanted: object) -> bool:
    """Compare as a handler would: a form knows only texts."""
    if got is _MISSING:
        return False
    if isinstance(wanted, list | tuple) and isinstance(got, list | tuple):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    return got == wanted or (isinstance(got, str) and got == str(wanted))


def complaint(expected: Expected, tasks: Sequence[AddedTask], count: int | None, matching: int) -> str:
    """Say what was expected, and what is different about each task that was added, the nearest first."""
    wanted = "a task" if count is None else f"{count} task{'' if count == 1 else 's'}"
    lines = [f"expected {wanted} with {expected}; {matching or 'none'} of {len(tasks)} added is like that"]
    if not tasks:
        return f"expected {wanted} with {expected}; no task was added and committed"
    ranked = sorted(tasks, key=lambda task: len(expected.differences(task)))
    for task in ranked[:_MOST_SHOWN]:
        differences = expected.differences(task)
        lines.append(f"  {'=' if not differences else ' '} {task}")
        lines.extend(f"      - {each}" for each in differences)
    if len(tasks) > _MOST_SHOWN:
        lines.append(f"    and {len(tasks) - _MOST_SHOWN} more")
    return "\n".join(lines)
