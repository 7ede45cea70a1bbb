"""What is kept of attempts, and of where tasks come from: the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.history import FIRST_KEPT, LAST_KEPT, outcome_of, shown_headers, superseded
from hookware.core.task import MOST_ORIGIN, stored_origin


def test_the_first_and_the_last_ones_are_kept() -> None:
    kept: set[int] = set()
    for number in range(1, 101):
        kept.add(number)
        kept -= {superseded(number) or 0}
        assert kept == {n for n in range(1, number + 1) if n <= FIRST_KEPT or n > number - LAST_KEPT}


@pytest.mark.parametrize(
    "name",
    [
        *("Set-Cookie", "Authorization", "WWW-Authenticate", "Proxy-Authorization", "Authentication-Info", "Cookie"),
        *("X-API-Key", "X-Auth-Token", "X-CSRFToken", "X-Amz-Security-Token", "X-Session-Id", "X-Secret", "Signature"),
    ],
)
def test_what_may_hold_a_secret_is_left_out(name: str) -> None:
    assert shown_headers([(name.encode(), b"s3cret"), (b"X-A", b"1")]) == (("x-a", "1"),)


def test_headers_are_bounded() -> None:
    many = [(b"x-%d" % n, b"v") for n in range(1000)]
    assert len(shown_headers(many)) == 40
    ((name, value),) = shown_headers([(b"n" * 10_000, b"\xff" * 10_000)])
    assert (name, value) == ("n" * 100, "\xff" * 300)


def test_what_no_server_would_send_is_left_out() -> None:
    assert shown_headers([("x-a", b"1"), (b"x-b", None), (b"x-c", b"1")]) == (("x-c", "1"),)


@pytest.mark.parametrize("wrong", ["lost", "", None, 7, b"retry"])
def test_an_outcome_that_is_none_counts_as_a_crash(wrong: object) -> None:
    assert (outcome_of("retry"), outcome_of(wrong)) == ("retry", "crashed")


@given(st.text(alphabet=st.characters(exclude_categories=())), st.text(alphabet=st.characters(exclude_categories=())))
def test_an_origin_fits_into_any_database(method: str, path: str) -> None:
    origin = stored_origin(method, "/" + path)
    assert origin.isprintable()
    assert len(origin) <= MOST_ORIGIN
    origin.encode()


def test_an_origin_is_what_it_was() -> None:
    assert stored_origin("POST", "/orders/ä") == "POST /orders/ä"
