"""A task as the command line shows it: a line of a list, all of it, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from hookware.cli.text import cut, when
from hookware.core.amounts import many, span
from hookware.core.history import AttemptRecord, shown_headers
from hookware.core.task import Headers
from hookware.core.why import Why
from hookware.store.base import TaskInfo
from hookware.store.views import TaskDetail

COLUMNS: Final = ("id", "state", "queue", "url", "eta", "attempts", "status", "error")


def cells(task: TaskInfo) -> tuple[object, ...]:
    """Give a task's cells, for `COLUMNS`."""
    error = task.dead_reason or ""
    if task.last_error:
        error = f"{error}: {task.last_error}" if error else task.last_error
    status = "-" if task.last_status is None else task.last_status
    return (
        task.id, task.state.name.lower(), task.queue_name, cut(task.url, 60), when(task.eta_us), task.attempt_count,
        status, cut(error, 60),
    )  # fmt: skip


def task_json(task: TaskInfo, *, with_payload: bool = False) -> dict[str, object]:
    """Give a task as JSON has it; its body only where that is asked for."""
    given: dict[str, object] = {name: value for name, value in asdict(task).items() if name not in ("body", "headers")}
    given["state"] = task.state.name.lower()
    given["headers"] = _headers(task)
    given["body_bytes"] = len(task.body)
    if with_payload:
        given["body"] = task.body
    return given


def shown(
    detail: TaskDetail, why: Why, attempts: Sequence[AttemptRecord], children: Sequence[TaskInfo], *, with_payload: bool
) -> tuple[dict[str, object], list[tuple[str, object]]]:
    """Give all of a task: as JSON, and as what people see."""
    task, now_us = detail.info, detail.now_us
    data = {
        **asdict(detail), "info": task_json(task, with_payload=with_payload),
        "why": {"code": why.code, "sentence": str(why)}, "attempts": [asdict(attempt) for attempt in attempts],
        "children": [child.id for child in children],
    }  # fmt: skip
    fields: list[tuple[str, object]] = [
        ("task", task.id), ("name", task.name), ("state", task.state.name.lower()), ("why", str(why)),
        ("queue", task.queue_name), ("request", f"{task.method} {task.url}"),
        ("headers", ", ".join(f"{name}: {value}" for name, value in _headers(task))),
        ("body", task.body.decode("utf-8", "backslashreplace") if with_payload else many(len(task.body), "byte")),
        ("added", when(detail.created_us, now_us)), ("by", task.origin), ("by task", task.parent_id),
        ("eta", when(task.eta_us, now_us)), ("ended", detail.ended_us and when(detail.ended_us, now_us)),
        ("runs in", task.owner), ("progress", task.progress and _progress(task)),
        ("attempts", task.attempt_count), ("crashes", task.crash_count or None),
        ("last status", task.last_status), ("last error", cut(task.last_error, 1000)),
        ("dead because", task.dead_reason),
        ("priority", task.priority or None), ("key", task.dedup_key), ("fair key", task.fair_key),
        ("limit key", task.limit_key), ("tag", task.tag),
        *((f"attempt {attempt.number}", _attempt(attempt)) for attempt in attempts),
        ("has added", ", ".join(f"{child.id} ({child.method} {cut(child.url, 60)})" for child in children)),
    ]  # fmt: skip
    return data, fields


def _progress(task: TaskInfo) -> str:
    given = task.progress
    return "" if given is None else cut(" ".join(str(part) for part in given if part not in (None, "")), 200)


def _attempt(attempt: AttemptRecord) -> str:
    took = "" if attempt.began_us is None else f" after {span(attempt.ended_us - attempt.began_us)}"
    status = "" if attempt.status is None else f", status {attempt.status}"
    error = f", {cut(attempt.error, 200)}" if attempt.error else ""
    return f"{when(attempt.ended_us)}: {attempt.outcome}{took}{status}{error}"


def _headers(task: TaskInfo) -> Headers:
    return shown_headers((name.encode(), value.encode("latin-1", "replace")) for name, value in task.headers)
