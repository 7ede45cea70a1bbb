"""Everybody sees and does what his role may, on every address, and nothing else."""

from typing import Any

import pytest

from hookware.core.lifecycle import State
from hookware.dashboard import Role
from hookware.dashboard.access import ROLES
from hookware.dashboard.routes import ROUTES
from tests.dashboard.site import SECRET, Filled, Visitor, records
from tests.insight.stored import World

NEEDED: dict[tuple[str, str], Role] = {
    ("GET", "/"): "read",
    ("GET", "/queues"): "read",
    ("GET", "/queue"): "read",
    ("GET", "/tasks"): "read",
    ("GET", "/task/{id}"): "read",
    ("GET", "/errors"): "read",
    ("GET", "/cron"): "read",
    ("GET", "/processes"): "read",
    ("GET", "/audit"): "read",
    ("GET", "/task/{id}/delete"): "operate",
    ("GET", "/many"): "operate",
    ("GET", "/compose"): "admin",
    ("GET", "/queue/purge"): "admin",
    ("POST", "/task/{id}/run"): "operate",
    ("POST", "/task/{id}/retry"): "operate",
    ("POST", "/task/{id}/postpone"): "operate",
    ("POST", "/task/{id}/cancel"): "operate",
    ("POST", "/task/{id}/delete"): "operate",
    ("POST", "/undo/{id}"): "operate",
    ("POST", "/queue/pause"): "operate",
    ("POST", "/queue/resume"): "operate",
    ("POST", "/queue/settings"): "operate",
    ("POST", "/queue/reset"): "operate",
    ("POST", "/cron/run"): "operate",
    ("POST", "/cron/pause"): "operate",
    ("POST", "/cron/resume"): "operate",
    ("POST", "/many"): "operate",
    ("POST", "/queue/purge"): "admin",
    ("POST", "/compose"): "admin",
}
GIVEN: dict[str, dict[str, str]] = {
    "/queue": {"name": "default"},
    "/queue/purge": {"name": "default"},
    "/queue/pause": {"name": "default"},
    "/queue/resume": {"name": "default"},
    "/queue/settings": {"name": "default", "rate": "5/s", "concurrency": "3"},
    "/queue/reset": {"name": "default"},
    "/many": {"action": "retry", "filter": "state:dead"},
    "/task/{id}/postpone": {"minutes": "5"},
    "/compose": {"url": "/worker", "queue": "default"},
}
VISITORS: list[Role | None] = [None, *ROLES]
TABLES = ("hookware_task", "hookware_queue", "hookware_audit", "hookware_name", "hookware_cron")


def test_the_table_of_addresses_is_the_one_of_the_code() -> None:
    assert {(route.method, route.path): route.role for route in ROUTES} == NEEDED


def contents(world: World) -> list[list[Any]]:
    return [world.stage.rows(f"SELECT * FROM {table}") for table in TABLES]


@pytest.mark.parametrize("role", VISITORS)
async def test_an_address_is_for_those_who_may(world: World, filled: Filled, role: Role | None) -> None:
    visitor, cron = Visitor(world.hookware, role), {"name": await cron_name(world)}
    for (method, path), needed in NEEDED.items():
        [due], [dead] = world.put(ago=-60), world.put(State.DEAD)
        here = path.format(id=dead if path.endswith(("retry", "delete", "{id}")) else due)
        given = cron if path.startswith("/cron/") else GIVEN.get(path, {})
        before = contents(world)
        answer = await (visitor.get(here, **given) if method == "GET" else visitor.post(here, **given))
        may = role is not None and ROLES.index(role) >= ROLES.index(needed)
        wanted = ({303} if method == "POST" and path != "/many" else {200}) if may else {401 if role is None else 403}
        assert answer.status in wanted, (path, answer.body)
        assert (contents(world) != before) == (may and method == "POST"), path


async def cron_name(world: World) -> str:
    [entry] = await world.hookware.cron.entries()
    return entry.name


async def test_deleting_many_is_for_admins(world: World, filled: Filled, operator: Visitor, admin: Visitor) -> None:
    given = {"action": "delete", "filter": "state:dead"}
    for answer in (await operator.get("/many", **given), await operator.post("/many", **given)):
        assert answer.status == 400
        assert b"for the role admin" in answer.body
    assert await world.hookware.inspector.get(filled.dead) is not None
    assert (await admin.post("/many", **given)).status == 200
    assert await world.hookware.inspector.get(filled.dead) is None


@pytest.mark.parametrize("role", ROLES)
async def test_payloads_and_what_may_repeat_them_are_for_admins(world: World, filled: Filled, role: Role) -> None:
    said = f'answered 422: {{"input": "{SECRET}"}}'  # as FastAPI answers what does not fit
    [refused] = world.put(State.DEAD, last_error=said, last_status=422, record_count=1)
    [waiting] = world.put(ago=-60, last_error=said, last_status=422, attempt_count=1)
    records(world, refused, said, number=1, headers=[["location", f"/login?next={SECRET}"]])
    visitor = Visitor(world.hookware, role)
    await visitor.post("/many", action="retry", filter=f"url:/nothing?{SECRET}* state:dead")
    telling = {
        "/tasks": {}, "/queue": {"name": "default"}, "/errors": {},
        f"/task/{filled.dead}": {}, f"/task/{filled.due}": {},
        f"/task/{refused}": {}, f"/task/{waiting}": {}, "/many": {"action": "retry", "filter": "state:dead status:422"},
    }  # fmt: skip
    silent: dict[str, dict[str, str]] = {"/queues": {}, "/cron": {}, "/processes": {}, "/audit": {}}
    for path, query in {**telling, **silent, "/": {}}.items():
        answer = await visitor.get(path, **query)
        if role == "admin" and path in telling:
            assert SECRET.encode() in answer.body, path
        elif role != "admin" or path in silent:
            assert SECRET.encode() not in answer.body, path


@pytest.mark.parametrize("role", ["read", "operate"])
async def test_who_sees_no_payload_cannot_guess_it_by_filters(world: World, filled: Filled, role: Role) -> None:
    visitor = Visitor(world.hookware, role)
    answer = await visitor.get("/tasks", filter="url:/worker?user=s3c*")
    assert answer.status == 400
    assert str(filled.due).encode() not in answer.body
    by_error = await visitor.get("/tasks", filter="error:s3c")
    assert by_error.status == (400 if role == "read" else 200)


@pytest.mark.parametrize("role", ["read", "operate"])
async def test_a_page_offers_only_what_its_reader_may(world: World, filled: Filled, role: Role) -> None:
    visitor = Visitor(world.hookware, role)
    pages = [await visitor.get(path) for path in ("/", "/errors", f"/task/{filled.dead}", "/cron")]
    pages.append(await visitor.get("/tasks", filter="state:dead"))
    pages.append(await visitor.get("/queue", name="default"))
    together = b"".join(page.body for page in pages)
    assert (b'method="post"' in together) == (role == "operate")
    assert not [each for each in (b"action=delete", b"/compose", b"/queue/purge") if each in together]
