"""Filters as SQL: pages give each task that is meant once, in order, on every database, and counts are right."""

from collections.abc import Callable
from typing import Any

import pytest

from hookware.core.filter import FilterError, parse
from hookware.core.lifecycle import State
from hookware.store.base import TaskInfo
from hookware.store.sql import choosing
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.insight.stored import SECOND_US, World

pytestmark = EVERY_DATABASE_ON_A_LOOP

Meant = Callable[[dict[str, Any]], bool]


def pending(row: dict[str, Any]) -> bool:
    return bool(row["state"] == State.PENDING)


FILTERS: dict[str, Callable[[dict[str, Any], int], bool]] = {
    "": lambda row, now: True,
    "state:due": lambda row, now: pending(row) and row["eta_us"] <= now,
    "state:scheduled": lambda row, now: pending(row) and row["eta_us"] > now,
    "state:waiting": lambda row, now: pending(row),
    "state:retrying": lambda row, now: pending(row) and row["attempt_count"] > 0,
    "state:due,retrying": lambda row, now: pending(row) and (row["eta_us"] <= now or row["attempt_count"] > 0),
    "state:running": lambda row, now: row["state"] == State.LEASED,
    "state:running queue:mail": lambda row, now: row["state"] == State.LEASED and row["queue_name"] == "mail",
    "state:dead": lambda row, now: row["state"] == State.DEAD,
    "state:dead queue:mail": lambda row, now: row["state"] == State.DEAD and row["queue_name"] == "mail",
    "state:dead reason:crashes": lambda row, now: row["dead_reason"] == "crashes",
    "state:dead queue:mail reason:crashes": lambda row, now: (
        row["dead_reason"] == "crashes" and row["queue_name"] == "mail"
    ),
    "state:completed": lambda row, now: row["state"] == State.COMPLETED,
    "state:pull": lambda row, now: row["state"] == State.PULL,
    "state:dead,due": lambda row, now: row["state"] == State.DEAD or (pending(row) and row["eta_us"] <= now),
    "queue:mail": lambda row, now: row["queue_name"] == "mail",
    "queue:mail,other": lambda row, now: row["queue_name"] in ("mail", "other"),
    "url:/worker": lambda row, now: row["url"].partition("?")[0] == "/worker",
    "url:/w*": lambda row, now: row["url"].startswith("/w"),
    'error:"TIMED out"': lambda row, now: "timed out" in (row["last_error"] or "").lower(),
    "error:100%": lambda row, now: "100%" in (row["last_error"] or ""),
    "status:503,none": lambda row, now: row["last_status"] == 503 or (row["last_error"] and row["last_status"] is None),
    "attempts:>1": lambda row, now: row["attempt_count"] > 1,
    "state:dead attempts:2..3": lambda row, now: row["state"] == State.DEAD and 2 <= row["attempt_count"] <= 3,
    "older:1h": lambda row, now: (row["ended_us"] or row["created_us"]) <= now - 3600 * SECOND_US,
    "state:dead newer:1h": lambda row, now: row["state"] == State.DEAD and row["ended_us"] > now - 3600 * SECOND_US,
    "key:k1": lambda row, now: row["dedup_key"] == "k1",
    "limit_key:l1 state:waiting": lambda row, now: pending(row) and row["limit_key"] == "l1",
    "name:n1,n2": lambda row, now: row["name"] in ("n1", "n2"),
    "name:n2 queue:mail state:dead": lambda row, now: (
        row["name"] == "n2" and row["queue_name"] == "mail" and row["state"] == State.DEAD
    ),
}


def fill(world: World) -> list[dict[str, Any]]:
    errors = [None, "timed out after 3 s", "Timed OUT after 100%", "no 100 here"]
    states = [State.PENDING, State.DEAD, State.COMPLETED, State.PULL, State.LEASED]
    for n in range(180):
        state = states[n % 5]
        dead = state is State.DEAD
        world.put(
            state, ago=(n * 977 % 7300) - 1000 if state in (State.PENDING, State.PULL) else n * 977 % 7300,
            queue_name=("default", "mail", "other")[n % 3], url=("/worker", "/worker?a=1", "/other", "/workers")[n % 4],
            last_error=errors[n % 4], last_status=(None, 500, 503)[n % 3], attempt_count=n // 5 % 5,
            dead_reason=("retries", "crashes")[n // 5 % 2] if dead else None,
            name=f"n{n // 5 % 4}" if n % 7 == 0 else None,
            dedup_key=f"k{n % 3}" if n % 11 == 0 and state is State.PENDING else None,
            limit_key=f"l{n // 20 % 2}" if n % 4 == 0 and state is State.PENDING else None,
        )  # fmt: skip
    columns = (
        "id", "state", "queue_name", "url", "last_error", "last_status", "attempt_count", "dead_reason", "name",
        "dedup_key", "limit_key", "eta_us", "ended_us", "created_us", "lease_until_us",
    )  # fmt: skip
    rows = world.stage.rows(f"SELECT {', '.join(columns)} FROM hookware_task")
    return [dict(zip(columns, row, strict=True)) for row in rows]


async def every_page(world: World, text: str, limit: int) -> list[TaskInfo]:
    found: list[TaskInfo] = []
    after = None
    while True:
        page = await world.insight.list(text, after=after, limit=limit)
        assert len(page.tasks) <= limit
        found += page.tasks
        after = page.after
        if after is None:
            return found


async def test_pages_give_each_task_that_is_meant_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = fill(world)
    monkeypatch.setattr(choosing, "_LISTED_VISITS", 40)  # so that pages end before they have looked at all
    for text, is_meant in FILTERS.items():
        meant = {row["id"] for row in rows if is_meant(row, world.now_us)}
        found = [info.id for info in await every_page(world, text, 7)]
        assert sorted(found) == sorted(meant), text
        assert meant, text
        count = await world.insight.count(text)
        assert count == (len(meant), False), text


async def test_waiting_tasks_come_as_they_are_due_and_dead_ones_the_latest_first(world: World) -> None:
    fill(world)
    etas = [info.eta_us for info in await every_page(world, "state:waiting", 10)]
    assert etas == sorted(etas)
    ended = dict(world.stage.rows("SELECT id, ended_us FROM hookware_task WHERE state = 2"))
    died = [ended[info.id] for info in await every_page(world, "state:dead", 10)]
    assert died == sorted(died, reverse=True)
    ids = [info.id for info in await every_page(world, "queue:mail", 10)]
    assert ids == sorted(ids, reverse=True)


async def test_many_that_died_in_one_moment_are_paged_by_their_ids(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_LISTED_VISITS", 20)
    ids = world.put(State.DEAD, count=100, ended_us=world.now_us, last_error="no")
    assert [info.id for info in await every_page(world, "state:dead error:no", 9)] == sorted(ids, reverse=True)
    assert await every_page(world, "state:dead error:yes", 9) == []


async def test_a_count_stops_where_it_would_cost_too_much(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put(State.DEAD, count=50)
    world.put(State.DEAD, count=5, queue_name="other")
    monkeypatch.setattr(choosing, "_MOST_COUNTED", 20)
    assert await world.insight.count("state:dead") == (20, True)
    assert await world.insight.count("state:dead queue:other") == (5, False)


async def test_a_place_that_is_none_is_refused(world: World) -> None:
    for after in ("", "x", "1", "1.2.3", f"1.{2**63}"):
        with pytest.raises(FilterError, match=r"take the after= that a page gave"):
            await world.insight.list("", after=after)
    with pytest.raises(FilterError, match=r"write one of due"):
        await world.insight.list("state:ded")


async def test_a_filter_may_be_given_as_a_value(world: World) -> None:
    (task_id,) = world.put(State.DEAD)
    assert [info.id for info in (await world.insight.list(parse("state:dead"))).tasks] == [task_id]
