"""A dashboard for tests: an installation with something on every page, and a visitor who asks as a browser does."""

import json
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import insert
from starlette.types import ASGIApp

from hookware import CronEntry
from hookware.core.lifecycle import State
from hookware.core.statistics import MINUTE_US, Sums
from hookware.dashboard import Role
from hookware.store.sql import minutes
from hookware.store.sql.tables import attempt_table, audit_table
from tests.asgi import Answer, request
from tests.insight.stored import SECOND_US, World

TOKENS: dict[Role, str] = {"read": "r" * 32, "operate": "o" * 32, "admin": "a" * 32}
BASE = "/_hookware"
FORM = (b"content-type", b"application/x-www-form-urlencoded")
SAME = (b"sec-fetch-site", b"same-origin")

SECRET = "s3cret-canary"


@dataclass(frozen=True)
class Visitor:
    """Somebody with a token, or without."""

    app: ASGIApp
    role: Role | None = None
    base: str = BASE

    async def get(self, path: str, *headers: tuple[bytes, bytes], **query: str) -> Answer:
        return await self._send("GET", path, list(headers), query=urlencode(query).encode())

    async def post(self, path: str, *headers: tuple[bytes, bytes], **form: str) -> Answer:
        return await self._send("POST", path, [FORM, *(headers or [SAME])], body=urlencode(form).encode())

    async def _send(self, method: str, path: str, headers: list[tuple[bytes, bytes]], **given: bytes) -> Answer:
        bearer = [] if self.role is None else [(b"authorization", f"Bearer {TOKENS[self.role]}".encode())]
        host = (b"host", b"tasks.example")
        answer = await request(
            self.app, self.base + path, method=method, headers=[host, *bearer, *headers],
            query=given.get("query", b""), body=given.get("body", b""),
        )  # fmt: skip
        assert answer.error is None
        return answer


@dataclass
class Filled:
    """The tasks of a filled world, by what they are for."""

    due: int
    scheduled: int
    running: int
    dead: int
    completed: int
    pull: int


def options(text: str = "a report") -> dict[str, Any]:
    """What the Hookware of a filled world is given."""
    entry = CronEntry(url="/report", schedule="every 5 minutes", description=text[:499].replace("\n", " "))
    return {"dashboard": {token: role for role, token in TOKENS.items()}, "cron": [entry]}


def fill(world: World, text: str = "plain") -> Filled:
    """Put something into every table, with `text` in every field that has room for it."""
    named: dict[str, Any] = {
        "name": text[:400], "tag": text[:400], "dedup_key": text, "fair_key": text, "limit_key": text,
        "origin": text[:200], "url": f"/worker?user={SECRET}",
    }  # fmt: skip
    headers = json.dumps([["content-type", "application/x-www-form-urlencoded"], ["x-note", SECRET]])
    body: dict[str, Any] = {"body": f"user={SECRET}".encode(), "headers": headers}
    error: dict[str, Any] = {"last_error": f"Error: {text} 17", "last_status": 500}
    [due] = world.put(ago=5, **named, **body)
    [scheduled] = world.put(ago=-3600, attempt_count=2, created_us=world.now_us, **error)
    [running] = world.put(State.LEASED, progress=json.dumps([3, 10, text]), **{**named, "name": None})
    [dead] = world.put(State.DEAD, ago=60, record_count=1, attempt_count=3, **named, **error, **body)
    [completed] = world.put(State.COMPLETED, ago=60)
    [pull] = world.put(State.PULL, queue_name="pulled", tag=text[:400])
    world.put(parent_id=dead, url=f"/child?{SECRET}")
    world.put(queue_name=text[:100], lane=text[:100], url=f"/{text}")
    world.put(State.DEAD, ago=60, queue_name=text[:100], last_error=text, url=f"/{text}")
    world.process(host=text[:64], version=text[:50], slowed=json.dumps([[text[:100], world.now_us]]))
    _records(world, dead, text)
    sums = Sums()
    sums.ended(0, 20_000, 3000)
    sums.ended(1, 20_000, 3000)
    sums.ended(2, 900_000, 3000)
    minute_us = world.now_us - world.now_us % MINUTE_US - MINUTE_US
    gathered = {("default", minute_us): sums, ("", minute_us): sums}
    world.outbox.runner.run_blocking(lambda c: minutes.add(c, world.outbox.own_clock, gathered))
    return Filled(due, scheduled, running, dead, completed, pull)


def records(world: World, task_id: int, error: str, *, number: int, headers: list[list[str]]) -> None:
    """Put the record of an attempt there."""
    record = {
        "task_id": task_id, "number": number, "attempt_count": 1, "fence": 1, "owner": "web", "method": "POST",
        "url": "/worker", "began_us": world.now_us - SECOND_US, "ended_us": world.now_us, "outcome": "dead",
        "status": 422, "error": error, "response_headers": json.dumps(headers), "response_text": error,
        "response_byte_count": len(error),
    }  # fmt: skip
    with world.stage.sync_engine.begin() as connection:
        connection.execute(insert(attempt_table), record)


def _records(world: World, task_id: int, text: str) -> None:
    record = {
        "task_id": task_id, "number": 1, "attempt_count": 1, "fence": 1, "owner": text[:200], "method": "POST",
        "url": f"/worker?user={SECRET}", "began_us": world.now_us - SECOND_US, "ended_us": world.now_us,
        "outcome": "dead", "status": 500, "error": text, "response_headers": json.dumps([["x-note", text]]),
        "response_text": f"{text} {SECRET}", "response_byte_count": 20,
    }  # fmt: skip
    entry = {
        "id": 1, "at_us": world.now_us, "who": text[:200], "role": "admin", "action": "retry", "target": text[:500],
        "result": text[:500],
    }  # fmt: skip
    with world.stage.sync_engine.begin() as connection:
        connection.execute(insert(attempt_table), record)
        connection.execute(insert(audit_table), entry)


class Markup(HTMLParser):
    """What a page is made of: its elements, the attributes that could do something, and what a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data
