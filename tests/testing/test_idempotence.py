"""The published state machine finds the handlers that may not run twice, and lets the others pass."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from hookware.loops import Loops
from hookware.testing.idempotence import Idempotence, check_idempotence
from tests.databases import Database
from tests.testing.site import Site


@pytest.fixture
def site(database: Database) -> Iterator[Site]:
    site = Site(database.engine())
    yield site
    site.engine.dispose()


def check(site: Site, url: str, *, examples: int = 10, reorders: bool = True) -> None:
    client = TestClient(site.app)
    check_idempotence(
        begin=site.forget,
        add=lambda number: client.post(f"/add?url={url}&key={number}"),
        effects=site.effects,
        max_examples=examples,
        reorders=reorders,
    )


@pytest.mark.slow
def test_an_idempotent_handler_passes(site: Site) -> None:
    check(site, "/once")


@pytest.mark.slow
def test_a_handler_that_counts_what_it_was_given_is_found(site: Site) -> None:
    with pytest.raises(
        AssertionError, match=r"the handler is not idempotent: .* (process died|failed) after the handler"
    ):
        check(site, "/again", examples=50)
    assert Loops.director is None


@pytest.mark.slow
def test_a_handler_that_fails_for_ever_at_its_second_run_is_found(site: Site) -> None:
    @site.router.task_handler("/unique")
    def unique(key: str) -> None:
        if key in site.effects():
            raise ValueError("it is there already")
        with site.engine.begin() as connection:
            connection.execute(text("INSERT INTO effect VALUES (:key)"), {"key": key})

    with pytest.raises(AssertionError, match="comes to no end: ValueError: it is there already"):
        check(site, "/unique", examples=50)


@pytest.mark.slow
def test_a_handler_for_which_the_order_matters_is_found_unless_that_is_meant(site: Site) -> None:
    @site.router.task_handler("/last")
    def last(key: str) -> None:
        with site.engine.begin() as connection:
            connection.execute(text("DELETE FROM effect"))
            connection.execute(text("INSERT INTO effect VALUES (:key)"), {"key": key})

    with pytest.raises(AssertionError, match="the handler is not idempotent"):
        check(site, "/last", examples=50)


def test_a_subclass_says_what_is_tested(site: Site) -> None:
    class Adding(Idempotence):
        def begin(self) -> None:
            site.forget()

        def add(self, number: int) -> None:
            TestClient(site.app).post(f"/add?url=/again&key={number}")

        def effects(self) -> list[str]:
            return site.effects()

    machine = Adding()
    machine.add_the_first()
    machine.crash_after()
    machine.crash_before()
    with pytest.raises(AssertionError, match=r"effects are \['0', '0'\], and \['0'\] if each of the 1 tasks runs once"):
        machine.teardown()
