"""`hookware.testing.rehearse`: tasks that run when the test says so, by the real dispatcher, store and decisions."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert, select, text
from sqlmodel import Session
from starlette.testclient import TestClient

from hookware import State, taskqueue
from hookware.loops import Loops
from hookware.processing import Processing
from hookware.store.sql.tables import process_table, task_table
from hookware.testing import EndlessTasksError, HandlerFailedError, PlannedError, Tasks, rehearse
from tests.databases import Database
from tests.testing.site import Site


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    site = Site(database.engine())
    yield site
    site.engine.dispose()


@pytest.fixture
def tasks(site: Site) -> Iterator[Tasks]:
    with rehearse() as tasks:
        yield tasks


@pytest.fixture
def client(site: Site, tasks: Tasks) -> Iterator[TestClient]:
    with site.client() as client:
        yield client


# What runs, and when.


def test_nothing_runs_until_the_test_says_so(site: Site, client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once&key=a")
    assert (site.handled, len(tasks)) == ([], 1)
    assert tasks.run().ok == 1
    assert (site.effects(), len(tasks)) == (["a"], 0)


@pytest.mark.parametrize("added", [False, True])
def test_it_works_without_a_lifespan(database: Database, added: bool) -> None:
    site = Site(database.engine(), added=added)
    with rehearse() as tasks:
        TestClient(site.app).post("/add?url=/once&key=a")
        assert tasks.run().urls == ["/once"]
    assert site.effects() == ["a"]
    site.engine.dispose()


def test_a_database_that_another_process_uses_is_not_emptied(site: Site) -> None:
    with site.client() as client:
        client.post("/add?url=/once&key=a&countdown=3600")
        check_that_it_is_left_alone(site)


def check_that_it_is_left_alone(site: Site) -> None:
    now_us = site.app._outbox.env.now_us()
    other = {
        "owner": "somebody", "host": "web-1", "pid": 12, "version": "1", "started_us": now_us, "seen_us": now_us,
        "concurrency": 1, "running_count": 0, "dispatches": 1, "clock_offset_us": 0,
    }  # fmt: skip
    with site.engine.begin() as connection:
        connection.execute(insert(process_table), other)
    told = "which tests would empty: give the app under test a database of its own"
    with pytest.raises(RuntimeError, match=told), rehearse():
        pass
    assert Loops.director is None
    with site.engine.begin() as connection:
        assert connection.execute(select(func.count()).select_from(task_table)).scalar_one() == 1
        connection.execute(delete(process_table))


def test_run_next_runs_one(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once&key=a")
    client.post("/add?url=/once&key=b")
    ran = tasks.run_next()
    assert ran is not None
    assert (ran.end, ran.task.attempt_count, len(tasks)) == ("ok", 1, 1)
    assert tasks.run_next() is not None
    assert tasks.run_next() is None


def test_what_waits_for_a_later_time_runs_when_the_clock_has_come_to_it(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once&key=now")
    client.post("/add?url=/once&key=later&countdown=3600")
    assert tasks.run().ok == 1
    tasks.clock.advance(timedelta(minutes=59))
    assert len(tasks.run()) == 0
    tasks.clock.advance(60)
    assert tasks.run().ok == 1


def test_a_countdown_is_counted_by_the_clock_that_has_been_moved(client: TestClient, tasks: Tasks) -> None:
    tasks.clock.advance(10_000)
    client.post("/add?url=/once&countdown=60")
    assert tasks.run_next() is None
    tasks.clock.advance(60)
    assert tasks.run_next() is not None


def test_the_clock_does_not_go_back(tasks: Tasks) -> None:
    with pytest.raises(ValueError, match="time cannot pass by -1"):
        tasks.clock.advance(-1)


def test_time_passes_for_a_queues_rate(client: TestClient, tasks: Tasks) -> None:
    for _ in range(3):
        client.post("/add?url=/once&queue_name=slow")
    before = tasks.clock.now
    assert tasks.run().ok == 3
    assert tasks.clock.now - before >= timedelta(seconds=100)


def test_a_paused_queue_stays_where_it_is(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once&queue_name=mail")
    client.post("/add?url=/once&countdown=60")
    taskqueue.Queue("mail").pause()
    assert len(tasks.run()) == 0
    assert tasks.clock.ahead_us == 0


def test_max_attempts_and_retries_say_how_much(client: TestClient, tasks: Tasks) -> None:
    for key in "abc":
        client.post(f"/add?url=/once&key={key}")
    assert len(tasks.run(max_attempts=2)) == 2
    tasks.fail()
    assert tasks.run(retries=False).retried == 1
    assert tasks.run().ok == 1


def test_tasks_without_an_end_are_an_error(client: TestClient, tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookware.testing.rehearsal.MOST_ATTEMPTS", 5)
    client.post("/add?url=/endless")
    with pytest.raises(EndlessTasksError, match="of late /endless"):
        tasks.run(max_attempts=5)


# What goes wrong.


def test_a_failure_that_nobody_has_planned_is_raised_with_its_cause(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/broken")
    with pytest.raises(
        HandlerFailedError, match=r"attempt 1 of task \d+ \(POST /broken\) failed: LookupError"
    ) as raised:
        tasks.run()
    assert isinstance(raised.value.__cause__, LookupError)
    assert tasks.run(raise_errors=False, max_attempts=3).retried == 3


def test_a_dead_task_is_listed(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/hopeless")
    assert tasks.run(raise_errors=False).dead == 1
    [dead] = tasks.list(state=State.DEAD)
    assert (dead.url, dead.dead_reason) == ("/hopeless", "permanent")
    assert tasks.list(url="/once") == []


def test_a_planned_failure_is_retried_by_its_backoff(site: Site, client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once&key=a")
    tasks.fail(site.once, status=503, times=2, retry_after=100)
    before = tasks.clock.now
    report = tasks.run()
    assert [ran.status for ran in report.attempts] == [503, 503, None]
    assert (report.ok, report.retried, site.handled) == (1, 2, ["a"])
    assert timedelta(seconds=200) <= tasks.clock.now - before < timedelta(seconds=201.5)


def test_an_exception_can_be_planned(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once")
    tasks.fail("/once", raises=OSError("no network"))
    report = tasks.run()
    assert report.attempts[0].error == "OSError: no network"
    assert (report.ok, report.retried) == (1, 1)


@pytest.mark.parametrize(("url", "effects"), [("/once", ["a"]), ("/again", ["a", "a"])])
def test_a_failure_after_the_handler_undoes_what_hookwares_session_wrote(
    site: Site, client: TestClient, tasks: Tasks, url: str, effects: list[str]
) -> None:
    client.post(f"/add?url={url}&key=a")
    tasks.fail(url, after=True)
    report = tasks.run()
    assert (report.ok, report.retried) == (1, 1)
    assert (site.handled, site.effects()) == (["a", "a"], effects)


@pytest.mark.parametrize(("at", "handled"), [("before", 1), ("after", 2)])
def test_a_crash_leaves_the_task_to_whoever_takes_the_lease_over(
    site: Site, client: TestClient, tasks: Tasks, at: str, handled: int
) -> None:
    client.post("/add?url=/once&key=a")
    tasks.crash(at=at)  # type: ignore[arg-type]  # one of the two
    first = tasks.run_next()
    assert first is not None
    assert (first.end, isinstance(first.exception, PlannedError | None)) == ("crash", True)
    assert tasks.list()[0].state is State.LEASED
    before = tasks.clock.now
    report = tasks.run()
    assert report.attempts[0].task.crash_count == 1
    assert timedelta(seconds=29) < tasks.clock.now - before < timedelta(seconds=31)
    assert (len(site.handled), site.effects()) == (handled, ["a"])


def test_crashes_up_to_the_limit_make_a_task_dead(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once")
    tasks.crash(times=3)
    report = tasks.run()
    assert (report.crashed, report.dead) == (3, 1)
    assert tasks.list()[0].dead_reason == "crashes"


@pytest.mark.parametrize(("url", "effects"), [("/once", ["a"]), ("/again", ["a", "a"])])
def test_delivering_twice_shows_who_is_not_idempotent(
    site: Site, client: TestClient, tasks: Tasks, url: str, effects: list[str]
) -> None:
    client.post(f"/add?url={url}&key=a")
    assert len(tasks.deliver_twice(url)) == 2
    assert (site.handled, site.effects()) == (["a", "a"], effects)


def test_delivering_nothing_twice_is_a_failure(tasks: Tasks) -> None:
    with pytest.raises(AssertionError, match="no task that fits and is due"):
        tasks.deliver_twice("/once")


# What was added.


def test_what_is_done_was_added_all_the_same(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once&key=a&countdown=60")
    tasks.clock.advance(60)
    tasks.run()
    task = tasks.assert_added(url="/once", params={"key": "a"}, countdown=60, count=1, method="POST")
    assert task.params == {"key": "a"}
    tasks.assert_none_added(url="/again")


def test_what_was_rolled_back_was_not_added(site: Site, tasks: Tasks) -> None:
    with Session(site.engine) as session:
        taskqueue.add(url="/once", session=session)
        session.rollback()
    tasks.assert_none_added()
    with pytest.raises(AssertionError, match="no task was added and committed"):
        tasks.assert_added(url="/once")


def test_a_task_of_a_typed_handler_is_compared_by_its_arguments(site: Site, client: TestClient, tasks: Tasks) -> None:
    site.once.options(queue_name="mail", priority=3).add(key="a")
    tasks.assert_added(url=site.once, params={"key": "a"}, queue_name="mail", priority=3)


def test_the_complaint_shows_what_was_added_instead_the_nearest_first(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/again&key=a")
    client.post("/add?url=/once&key=a&queue_name=mail")
    with pytest.raises(AssertionError) as raised:
        tasks.assert_added(url="/once", params={"key": "b", "to": "c"}, queue_name="mail")
    lines = str(raised.value).splitlines()
    wanted = "url='/once', params={'key': 'b', 'to': 'c'}, queue_name='mail'"
    assert lines[0] == f"expected a task with {wanted}; none of 2 added is like that"
    assert re.match(r" +POST /once queue_name='mail' params=\{'key': 'a'\} eta=", lines[1])
    assert lines[2:4] == [
        "      - params['key']: expected 'b', got 'a'",
        "      - params['to']: expected 'c', got none",
    ]
    assert "POST /again" in lines[4]
    assert "      - queue_name: expected 'mail', got 'default'" in lines[5:]


def test_the_number_of_tasks_counts(client: TestClient, tasks: Tasks) -> None:
    client.post("/add?url=/once")
    client.post("/add?url=/once")
    tasks.assert_added(url="/once", count=2)
    with pytest.raises(AssertionError, match="expected 1 task with url='/once'; 2 of 2 added"):
        tasks.assert_added(url="/once", count=1)
    with pytest.raises(AssertionError, match="expected 0 tasks with any task; 2 of 2 added"):
        tasks.assert_none_added()


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        ({"countdown": 9}, "countdown: expected 9, got 0.0"),
        ({"payload": "x"}, "payload: expected 'x', got b'key='"),
        ({"headers": {"X-A": "1"}}, "headers['X-A']: expected '1', got None"),
        ({"name": "n"}, "name: expected 'n', got None"),
    ],
)
def test_each_difference_is_named(client: TestClient, tasks: Tasks, wish: dict[str, object], complaint: str) -> None:
    client.post("/add?url=/once")
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        tasks.assert_added(**wish)  # type: ignore[arg-type]  # one of many


def test_an_unknown_wish_is_a_mistake_of_the_test(tasks: Tasks) -> None:
    with pytest.raises(TypeError, match="a task has no queue: expect url, params"):
        tasks.assert_added(queue="mail")  # type: ignore[call-arg]  # the mistake


# Modes.


def test_inline_runs_what_a_request_has_added_before_it_returns(site: Site) -> None:
    with rehearse("inline") as tasks, site.client() as client:
        client.post("/add?url=/once&key=a")
        assert site.effects() == ["a"]
        tasks.assert_added(url="/once")
        with pytest.raises(HandlerFailedError, match="/broken"):
            client.post("/add?url=/broken")


def test_live_lets_the_dispatcher_run(site: Site) -> None:
    with rehearse("live") as tasks, site.client() as client:
        client.post("/add?url=/once&key=a")
        assert tasks.run().ok == 1
        client.post("/add?url=/once&key=b&countdown=3600")
        assert tasks.run().ok == 1
        tasks.clock.advance(3600)
        assert tasks.run().ok == 2
        with pytest.raises(RuntimeError, match=r'fail\(\) needs mode="manual"'):
            tasks.fail()
    assert site.effects() == ["a", "b"]


def test_live_without_a_lifespan_says_what_is_missing(site: Site) -> None:
    with rehearse("live") as tasks:
        TestClient(site.app).post("/add?url=/once")
        with pytest.raises(RuntimeError, match="start the app's lifespan"):
            tasks.run()


def test_an_app_that_runs_is_held_and_goes_on_afterwards(site: Site) -> None:
    def processing() -> bool:
        [loops] = [each for each in Loops.made if each.outbox.sync_engine is site.engine]
        return isinstance(loops.processing, Processing)

    with site.client() as client:
        assert processing()
        with rehearse() as tasks:
            assert not processing()
            client.post("/add?url=/once&key=a")
            assert len(tasks) == 1
        assert processing()
        with rehearse("live") as tasks:
            assert len(tasks) == 0  # the one before has left nothing
            client.post("/add?url=/once&key=b")
            tasks.run()
    assert site.effects() == ["b"]


def test_two_rehearsals_at_once_are_refused(tasks: Tasks) -> None:
    with pytest.raises(RuntimeError, match="another rehearsal is going on"), rehearse():
        pass
    with pytest.raises(ValueError, match="mode is"), rehearse("eager"):  # type: ignore[arg-type]  # the mistake
        pass


def test_several_apps_take_part(site: Site, tasks: Tasks, database: Database) -> None:
    other = Site(Database(url=database.url.set(database=f"{database.url.database}.other"), driver="").engine())
    with site.client() as one, other.client() as two:
        one.post("/add?url=/once&key=a")
        two.post("/add?url=/once&key=b")
        assert len(tasks) == 2
        tasks.of(other.engine).assert_added(params={"key": "b"}, count=1)
        assert tasks.of(other.engine).run().ok == 1
        assert (site.effects(), other.effects()) == ([], ["b"])
        assert tasks.run().ok == 1
    assert site.effects() == ["a"]
    other.engine.dispose()


# Within a transaction that is rolled back.


def test_nothing_is_left_of_a_test_within_a_transaction(site: Site, client: TestClient, tasks: Tasks) -> None:
    with site.engine.connect() as connection:
        outer = connection.begin()
        with (
            tasks.within(connection),
            Session(connection, join_transaction_mode="create_savepoint") as session,
        ):
            session.execute(text("SELECT key FROM effect"))
            assert len(tasks) == 0  # hookware's savepoint comes after one of the session's that was put off
            site.api.dependency_overrides[site.get_session] = lambda: iter([session])
            client.post("/add?url=/once&key=a")
            tasks.assert_added(url="/once")
            tasks.fail(after=True)
            tasks.crash(at="after")
            report = tasks.run()
            assert (report.ok, report.retried, report.crashed) == (1, 1, 1)
            assert session.execute(text("SELECT key FROM effect")).scalars().all() == ["a"]
            assert len(tasks) == 0
            client.post("/add?url=/once&key=b")
        outer.rollback()
    assert (site.effects(), len(tasks)) == ([], 0)


def test_within_wants_a_transaction(site: Site, tasks: Tasks) -> None:
    with site.engine.connect() as connection:
        with pytest.raises(TypeError, match="a connection in a transaction"), tasks.within(connection):
            pass
        with pytest.raises(TypeError, match="takes a Connection"), tasks.within(site.engine):  # type: ignore[arg-type]  # the mistake
            pass


# PostgreSQL, whose time is its own.


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["postgresql+psycopg"], indirect=True)
def test_it_works_on_postgresql(site: Site, client: TestClient, tasks: Tasks) -> None:
    tasks.clock.advance(10_000)
    client.post("/add?url=/once&key=a&countdown=60")
    tasks.assert_added(countdown=60)
    assert tasks.run_next() is None
    tasks.clock.advance(61)
    tasks.fail(times=2)
    tasks.crash()
    report = tasks.run()
    assert (report.ok, report.retried, report.crashed, site.effects()) == (1, 2, 1, ["a"])


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["postgresql+psycopg"], indirect=True)
def test_nothing_is_left_on_postgresql_either(site: Site, client: TestClient, tasks: Tasks) -> None:
    test_nothing_is_left_of_a_test_within_a_transaction(site, client, tasks)
