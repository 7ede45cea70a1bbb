"""What people do: it happens together with its entry in the audit, and nothing is said to be done that was not."""

import re
from dataclasses import replace
from typing import Any

import pytest

from hookware import State
from hookware.core.audit import KEPT_US
from hookware.core.filter import parse
from hookware.dashboard import many
from hookware.store.sql import bulk
from hookware.store.sql.tables import audit_table
from hookware.store.sql.undo import UNDO_US
from tests.dashboard.site import FORM, SAME, Filled, Visitor
from tests.databases import EVERY_DATABASE
from tests.insight.stored import World


def audit(world: World) -> list[tuple[str, str, str]]:
    rows = world.stage.rows("SELECT action, target, result FROM hookware_audit ORDER BY id")
    return [tuple(row) for row in rows][1:]  # the first is the filled one


async def info(world: World, task_id: int) -> Any:
    return await world.hookware.inspector.get(task_id)


async def test_run_now(world: World, operator: Visitor, filled: Filled) -> None:
    answer = await operator.post(f"/task/{filled.scheduled}/run")
    assert answer.headers["location"] == f"/_hookware/task/{filled.scheduled}?notice=run"
    assert (await info(world, filled.scheduled)).eta_us < world.now_us + 60_000_000
    assert audit(world) == [("run now", f"task {filled.scheduled} in queue default", "done")]


async def test_retry(world: World, operator: Visitor, filled: Filled) -> None:
    await operator.post(f"/task/{filled.dead}/retry")
    assert (await info(world, filled.dead)).state is State.PENDING
    assert audit(world) == [("retry", f"task {filled.dead} in queue default", "done")]


async def test_postpone(world: World, operator: Visitor, filled: Filled) -> None:
    await operator.post(f"/task/{filled.due}/postpone", minutes="90")
    minutes = ((await info(world, filled.due)).eta_us - world.now_us) / 60e6
    assert 90 <= minutes < 91
    assert audit(world)[0][0] == "postpone by 5400 s"


@pytest.mark.parametrize("minutes", ["", "x", "-1", "nan", "inf", "1e9"])
async def test_a_time_that_is_none_changes_nothing(
    world: World, operator: Visitor, filled: Filled, minutes: str
) -> None:
    before = await info(world, filled.due)
    answer = await operator.post(f"/task/{filled.due}/postpone", minutes=minutes)
    assert answer.status == 400
    assert (await info(world, filled.due), audit(world)) == (before, [])


async def test_cancel(world: World, operator: Visitor, filled: Filled) -> None:
    called_off: list[int] = []
    world.outbox.store.on_cancelled = called_off.append
    answer = await operator.post(f"/task/{filled.due}/cancel")
    assert answer.headers["location"] == "/_hookware/tasks?notice=cancelled"
    assert await info(world, filled.due) is None
    await operator.post(f"/task/{filled.running}/cancel")
    assert (await info(world, filled.running)).dead_reason == "cancelled"
    assert filled.running in called_off


async def test_delete_asks_first(world: World, operator: Visitor, filled: Filled) -> None:
    page = await operator.get(f"/task/{filled.dead}/delete")
    assert b"brought back for an hour" in page.body
    assert await info(world, filled.dead) is not None
    await operator.post(f"/task/{filled.dead}/delete")
    assert await info(world, filled.dead) is None
    assert audit(world) == [("delete", f"task {filled.dead} in queue default", "done")]


def whole_row(world: World, task_id: int) -> Any:
    return world.stage.rows(f"SELECT * FROM hookware_task WHERE id = {task_id}")


@EVERY_DATABASE
async def test_what_was_deleted_is_brought_back_as_it_was_and_once(
    world: World, operator: Visitor, filled: Filled
) -> None:
    for task_id in (filled.due, filled.scheduled, filled.pull, filled.completed):
        before = whole_row(world, task_id)
        assert len(before) == 1
        answer = await operator.post(f"/task/{task_id}/delete")
        assert whole_row(world, task_id) == []
        page = await operator.get("/tasks", **dict(re.findall(r"(\w+)=(\w+)", answer.headers["location"])))
        [undo] = re.findall(r"/_hookware(/undo/\d+)", page.body.decode())
        assert undo in (await operator.get("/audit")).body.decode()
        answer = await operator.post(undo)
        assert answer.headers["location"] == f"/_hookware/task/{task_id}?notice=restored"
        assert whole_row(world, task_id) == before
        assert (await operator.post(undo)).headers["location"] == "/_hookware/audit?notice=too-late"
        assert undo not in (await operator.get("/audit")).body.decode()
    assert [entry[0] for entry in audit(world)] == ["delete", "bring back", "bring back"] * 4
    assert [entry[2] for entry in audit(world)][1:3] == [f"task {filled.due}", "it was too late"]


@EVERY_DATABASE
async def test_a_dead_task_comes_back_without_its_attempts_and_has_its_name_again(
    world: World, operator: Visitor, filled: Filled
) -> None:
    await operator.post(f"/task/{filled.dead}/delete")
    [(name, expires_us)] = world.stage.rows(f"SELECT name, expires_us FROM hookware_name WHERE task_id = {filled.dead}")
    assert expires_us > world.now_us
    [entry] = world.stage.rows("SELECT id FROM hookware_audit WHERE kept IS NOT NULL")
    await operator.post(f"/undo/{entry}")
    held = world.stage.rows(f"SELECT name, expires_us FROM hookware_name WHERE task_id = {filled.dead}")
    assert [tuple(row) for row in held] == [(name, None)]
    assert (await info(world, filled.dead)).state is State.DEAD
    assert world.stage.rows(f"SELECT record_count FROM hookware_task WHERE id = {filled.dead}") == [None]


async def test_after_an_hour_nothing_of_a_deleted_task_is_kept(world: World, operator: Visitor, filled: Filled) -> None:
    await operator.post(f"/task/{filled.dead}/delete")
    await operator.post(f"/task/{filled.due}/delete")
    [old, new] = world.stage.rows("SELECT id FROM hookware_audit WHERE kept IS NOT NULL ORDER BY id")
    aged = audit_table.update().where(audit_table.c.id == old).values(at_us=world.now_us - UNDO_US)
    with world.stage.sync_engine.begin() as connection:
        connection.execute(aged)
    assert (await operator.post(f"/undo/{old}")).headers["location"].endswith("notice=too-late")
    await world.outbox.store.prune()
    assert world.stage.rows("SELECT id FROM hookware_audit WHERE kept IS NOT NULL") == [new]


async def test_what_cannot_be_done_is_not_said_to_be_done(world: World, operator: Visitor, filled: Filled) -> None:
    for task_id, action in [(filled.running, "run"), (filled.due, "retry"), (filled.running, "delete")]:
        answer = await operator.post(f"/task/{task_id}/{action}")
        assert answer.headers["location"].endswith("?notice=unchanged")
    assert {result for _action, _target, result in audit(world)} == {"nothing was done"}
    assert (await operator.post("/task/123456789/run")).status == 404


async def test_pause_and_resume(world: World, operator: Visitor, filled: Filled) -> None:
    await operator.post("/queue/pause", name="default")
    queue = await world.insight.queue("default")
    assert (queue.paused, queue.paused_by) == (True, "token for operate (192.0.2.1)")
    await operator.post("/queue/resume", name="default")
    assert not (await world.insight.queue("default")).paused
    assert [entry[:2] for entry in audit(world)] == [("pause", "queue default"), ("resume", "queue default")]


async def test_settings_and_back(world: World, operator: Visitor, filled: Filled) -> None:
    await operator.post("/queue/settings", name="default", rate="30/m", concurrency="4", bucket="7")
    settings = (await world.insight.queue("default")).settings
    assert (settings.rate, settings.max_concurrent_requests, settings.bucket_size) == (0.5, 4, 7)
    page = await operator.get("/queue", name="default")
    assert b"changed at run time" in page.body
    shown = {"was_rate": "0.5/s", "was_concurrency": "4", "was_bucket": "7"}
    for name, value in shown.items():
        assert f'name="{name}" value="{value}"' in page.body.decode()
    await operator.post("/queue/settings", name="default", rate="", concurrency="", bucket="7", **shown)
    settings = (await world.insight.queue("default")).settings
    assert (settings.rate, settings.max_concurrent_requests, settings.bucket_size) == (None, None, 7)
    await operator.post("/queue/reset", name="default")
    assert (await world.insight.queue("default")).overrides == ()
    assert audit(world)[0] == (
        "change settings", "queue default", "rate=0.5, max_concurrent_requests=4, bucket_size=7"
    )  # fmt: skip


async def test_what_is_not_changed_stays_as_it_is_configured(world: World, operator: Visitor, filled: Filled) -> None:
    page = (await operator.get("/queue", name="default")).body.decode()
    shown = dict(re.findall(r'name="(was_[a-z]+)" value="([^"]*)"', page))
    given = {name.removeprefix("was_"): value for name, value in shown.items()} | {"concurrency": "4"}
    await operator.post("/queue/settings", name="default", **given, **shown)
    assert (await world.insight.queue("default")).overrides == ("max_concurrent_requests",)


@pytest.mark.parametrize("rate", ["often", "5/x", "-1/s", "1e99/s", "<script>"])
async def test_settings_that_are_none_are_refused(world: World, operator: Visitor, filled: Filled, rate: str) -> None:
    answer = await operator.post("/queue/settings", name="default", rate=rate)
    assert answer.status == 400
    assert b"<script>alert" not in answer.body
    assert (await world.insight.queue("default")).overrides == ()


@pytest.mark.parametrize("name", ["", "no such", "a/b", "x" * 101, "'; DROP TABLE hookware_task; --"])
async def test_a_queue_that_none_can_be_is_not_made(world: World, operator: Visitor, name: str) -> None:
    assert (await operator.post("/queue/pause", name=name)).status == 404
    assert world.stage.rows("SELECT name FROM hookware_queue") == []


async def test_purge_goes_on_until_all_is_gone_that_was_there(
    world: World, admin: Visitor, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_SECONDS_AT_ONCE", 0)
    world.put(count=1500)
    answer = await admin.post("/queue/purge", name="default")
    [late] = world.put(created_us=world.now_us + 3600_000_000)  # one that comes meanwhile stays
    count = 0
    while answer.status == 200:
        [before] = re.findall(r'name="before" value="(\d+)"', answer.body.decode())
        answer = await admin.post("/queue/purge", name="default", before=before)
        count += 1
    assert answer.headers["location"] == "/_hookware/queue?name=default&notice=purged"
    assert count > 1
    left = world.stage.rows("SELECT id FROM hookware_task WHERE queue_name = 'default' ORDER BY id")
    assert left == [filled.completed, late]
    assert [entry[::2] for entry in audit(world)] == [
        ("purge", "begun"), *[("purge", "goes on")] * count, ("purge", "done"),
    ]  # fmt: skip


async def test_many_are_previewed_then_done_some_at_a_time(
    world: World, operator: Visitor, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "_SECONDS_AT_ONCE", 0)
    world.put(State.DEAD, count=500, last_error="it broke", ago=10)
    given = {"action": "retry", "filter": 'error:"it broke" state:dead'}
    page = (await operator.get("/many", **given)).body.decode()
    assert "500 tasks are meant" in page
    assert world.stage.rows("SELECT count(*) FROM hookware_task WHERE last_error = 'it broke' AND state <> 2") == [0]
    done = []
    answer = await operator.post("/many", **given)
    while "That is all" not in (html := answer.body.decode()):
        done.append(int(re.findall(r"(\d+) tasks? done", html)[0]))
        [token] = re.findall(r'name="token" value="([^"]+)"', html)
        answer = await operator.post("/many", **given, token=token)
    assert done == [200, 400]
    assert world.stage.rows("SELECT count(*) FROM hookware_task WHERE last_error = 'it broke' AND state = 2") == [0]
    assert [entry[::2] for entry in audit(world)] == [
        ("retry all", "begun"), *[("retry all", "200 done, more to do")] * 2, ("retry all", "100 done"),
    ]  # fmt: skip


async def test_what_is_written_down_of_many_does_not_come_from_the_browser(
    world: World, operator: Visitor, filled: Filled
) -> None:
    world.put(State.DEAD, count=3, last_error="it broke", ago=10)
    given = {"action": "retry", "filter": 'error:"it broke" state:dead'}
    forged = replace(bulk.begin("retry", parse(given["filter"])), started_us=world.now_us + 1_000_000, done_count=-500)
    await operator.post("/many", **given, token=forged.progress.token)
    assert [entry[::2] for entry in audit(world)] == [("retry all", "3 done")]


@pytest.mark.parametrize(
    "given",
    [
        {"action": "retry", "filter": ""},
        {"action": "retry", "filter": "state:due"},
        {"action": "retry", "filter": "nonsense"},
        {"action": "drop", "filter": "state:dead"},
        {"action": "retry", "filter": "state:dead", "token": "x"},
    ],
)
async def test_many_that_are_not_meant_are_left_alone(
    world: World, admin: Visitor, filled: Filled, given: dict[str, str]
) -> None:
    before = world.stage.rows("SELECT id, state FROM hookware_task ORDER BY id")
    assert (await admin.post("/many", **given)).status in (400, 404)
    assert world.stage.rows("SELECT id, state FROM hookware_task ORDER BY id") == before


async def test_cron_entries(world: World, operator: Visitor, filled: Filled) -> None:
    [entry] = await world.hookware.cron.entries()
    for action, notice in (("run", "cron-run"), ("pause", "cron-paused")):
        answer = await operator.post(f"/cron/{action}", name=entry.name)
        assert answer.headers["location"] == f"/_hookware/cron?notice={notice}"
    assert world.stage.rows("SELECT url FROM hookware_task WHERE queue_name = '__cron'") == ["/report"]
    assert (await world.hookware.cron.entries())[0].is_paused
    page = (await operator.get("/cron")).body.decode()
    assert page.count("<li>20") == 5  # the next five times
    await operator.post("/cron/resume", name=entry.name)
    assert not (await world.hookware.cron.entries())[0].is_paused
    assert (await operator.post("/cron/run", name="nobody")).status == 404
    assert [entry[0] for entry in audit(world)] == ["run now", "pause", "resume"]


async def test_compose(world: World, admin: Visitor, filled: Filled) -> None:
    answer = await admin.post("/compose", url="/worker", queue="mail", payload="user=7\nuser=8\nnote=a=b", minutes="10")
    task_id = int(re.findall(r"/task/(\d+)", answer.headers["location"])[0])
    task = await info(world, task_id)
    assert (task.queue_name, task.body) == ("mail", b"user=7&user=8&note=a%3Db")
    assert task.eta_us > world.now_us + 590_000_000
    assert audit(world) == [("add", f"task {task_id} for /worker in queue mail", "added")]


async def test_compose_json(world: World, admin: Visitor) -> None:
    answer = await admin.post("/compose", url="/worker", kind="json", payload='{"a": [1]}', name="once")
    [task_id] = re.findall(r"/task/(\d+)", answer.headers["location"])
    task = await info(world, int(task_id))
    assert (task.body, dict(task.headers)["content-type"]) == (b'{"a": [1]}', "application/json")
    again = await admin.post("/compose", url="/worker", name="once")
    assert again.status == 409
    assert b"name taken" in again.body


@pytest.mark.parametrize(
    "given",
    [
        {"url": ""}, {"url": "https://elsewhere.example/"}, {"url": "//elsewhere.example"}, {"url": "/a", "queue": "?"},
        {"url": "/a", "method": "PULL"}, {"url": "/a", "payload": "no param"}, {"url": "/a\r\nx: y"},
        {"url": "/a", "minutes": "soon"}, {"url": "/a", "name": "<b>"},
    ],
)  # fmt: skip
async def test_a_task_that_is_none_is_refused_with_what_was_written(
    world: World, admin: Visitor, given: dict[str, str]
) -> None:
    answer = await admin.post("/compose", **given)
    assert answer.status == 400
    assert world.stage.task_count() == 0
    assert b'role="alert"' in answer.body


async def test_what_is_done_is_undone_with_its_entry(world: World, operator: Visitor, filled: Filled) -> None:
    await world.outbox.prepare()  # else the table would be made again
    world.stage.execute("DROP TABLE hookware_audit")
    assert (await operator.post(f"/task/{filled.dead}/retry")).status == 500
    assert (await info(world, filled.dead)).state is State.DEAD


async def test_the_audit_shows_the_latest_first_a_page_at_a_time(world: World, operator: Visitor) -> None:
    for _ in range(60):
        await operator.post("/queue/pause", name="default")
    html = (await operator.get("/audit")).body.decode()
    assert html.count("queue default") == 50
    [before] = re.findall(r"before=(\d+)", html)
    assert (await operator.get("/audit", before=before)).body.decode().count("queue default") == 10


async def test_the_audit_is_kept_for_three_months(world: World, operator: Visitor) -> None:
    await operator.post("/queue/pause", name="default")
    old = {"who": "x", "role": "read", "action": "old", "target": "x", "result": ""}
    with world.stage.sync_engine.begin() as connection:
        for n, at_us in enumerate((world.now_us - KEPT_US - 60_000_000, world.now_us - KEPT_US + 60_000_000)):
            connection.execute(audit_table.insert(), {"id": n, "at_us": at_us, **old})
    await world.outbox.store.prune()
    assert world.stage.rows("SELECT id FROM hookware_audit WHERE action = 'old'") == [1]
    assert world.stage.rows("SELECT count(*) FROM hookware_audit") == [2]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([(b"content-type", b"application/json")], b"{}", 415),
        ([(b"content-type", b"text/plain")], b"name=default", 415),
        ([FORM, (b"content-encoding", b"gzip")], b"name=default", 415),
        ([FORM], b"x" * 300_000, 413),
        ([FORM], b"&".join(b"a=b" for _ in range(60)), 400),
        ([FORM], b"name=%ff", 400),
        ([FORM], b"name=\xff", 400),
    ],
)
async def test_a_form_that_is_none_is_not_read(
    world: World, admin: Visitor, headers: list[tuple[bytes, bytes]], body: bytes, status: int
) -> None:
    answer = await admin._send("POST", "/queue/pause", [SAME, *headers], body=body)
    assert answer.status == status
    assert world.stage.rows("SELECT name FROM hookware_queue") == []
