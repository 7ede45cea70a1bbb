"""Header rules: RFC 9110, the names a task may not set, stripping, and what a delivery carries."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.headers import (
    check_header,
    delivery_headers,
    is_forbidden,
    is_internal,
    strip_internal,
)
from hookware.core.task import LeasedTask

TASK = LeasedTask(
    id=77,
    fence=4,
    queue_name="mail",
    name=None,
    method="POST",
    url="/w",
    headers=(),
    body=b"",
    eta_us=1_243_814_400_100_000,
    attempt_count=1,
    crash_count=0,
    first_attempt_us=1_243_814_400_200_000,
    claimed_us=1_243_814_400_200_000,
    last_status=None,
    retry=None,
    deadline_us=30_000_000,
)

TCHAR = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@given(st.text(max_size=6) | st.text(st.sampled_from(sorted(TCHAR)), max_size=6))
def test_a_name_is_accepted_exactly_when_it_is_a_token(name: str) -> None:
    try:
        check_header(name, "v")
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == (bool(name) and set(name) <= TCHAR)


@given(st.text(st.characters(max_codepoint=0x120), max_size=6))
def test_a_value_is_accepted_exactly_when_it_is_a_field_value(value: str) -> None:
    try:
        check_header("x-a", value)
        accepted = True
    except ValueError:
        accepted = False
    visible = all(c == "\t" or (" " <= c <= "ÿ" and c != "\x7f") for c in value)
    assert accepted == (visible and value == value.strip(" \t"))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\n", "a\x00", "ü", " a", "a ", "(a)", "a/b"])
def test_a_broken_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header name"):
        check_header(name, "v")


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\na", "a\x00", "a\x7f", "a\x1b", " a", "a ", "a\t", "語"])
def test_a_broken_value_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="'x-secret'") as caught:
        check_header("x-secret", value)
    assert repr(value) not in str(caught.value)


def spellings(name: str) -> list[str]:
    return [name, name.upper(), name.title(), name.replace("-", "_"), name.replace("-", "_").upper()]


@pytest.mark.parametrize(
    "name",
    [
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade",
        "proxy-connection", "proxy-authorization", "expect", "forwarded", "x-forwarded-for", "x-forwarded-proto",
        "x-forwarded-host", "x-forwarded-anything", "x-http-method-override",
    ],
)  # fmt: skip
def test_headers_that_steer_servers_are_forbidden_in_every_spelling(name: str) -> None:
    assert all(is_forbidden(spelling) for spelling in spellings(name))


@pytest.mark.parametrize("name", ["authorization", "cookie", "content-type", "x-foo", "accept", "x-forwarde", "hosts"])
def test_other_headers_are_allowed(name: str) -> None:
    assert not is_forbidden(name)
    assert not is_internal(name)


INTERNAL = ["x-appengine-queuename", "x-appengine-", "x-cloudtasks-taskname", "x-hookware-fence", "x-hookware-new"]


@pytest.mark.parametrize("name", INTERNAL)
def test_internal_headers_are_known_in_every_spelling(name: str) -> None:
    assert all(is_internal(spelling) for spelling in spellings(name))


mixed_case = st.sampled_from(INTERNAL).flatmap(
    lambda name: st.tuples(*(st.sampled_from([c, c.upper(), "_" if c == "-" else c]) for c in name)).map("".join)
)
padding = st.sampled_from(["", " ", "\t", "  ", "\r\n ", "\x0b"])
forged = st.tuples(padding, mixed_case, padding, st.binary(max_size=4)).map(
    lambda parts: ("".join(parts[:3]).encode(), parts[3])
)
honest = st.tuples(
    st.sampled_from([b"host", b"x-appengine", b"x-app-engine-taskname", b"X-Foo", b"appengine-x", b"x-hookwares-a"])
    | st.binary(max_size=8).filter(lambda name: not name.strip().lower().startswith(b"x")),
    st.binary(max_size=4),
)


@pytest.mark.slow
@given(st.lists(st.tuples(st.just(True), forged) | st.tuples(st.just(False), honest), max_size=12))
def test_the_network_cannot_send_internal_headers(marked: list[tuple[bool, tuple[bytes, bytes]]]) -> None:
    headers = [header for _, header in marked]
    assert list(strip_internal(headers)) == [header for is_forged, header in marked if not is_forged]


def test_headers_without_internal_ones_are_the_same_object() -> None:
    headers = [(b"host", b"x"), (b"x-foo", b"y")]
    assert strip_internal(headers) is headers


def test_a_thousand_copies_and_a_one_shot_iterator_are_stripped() -> None:
    copies = [(b"X_AppEngine-TaskName", b"evil")] * 1000
    assert strip_internal([(b"a", b"b"), *copies, (b"c", b"d")]) == [(b"a", b"b"), (b"c", b"d")]
    assert strip_internal(iter([(b"a", b"b"), *copies])) == [(b"a", b"b")]
    assert strip_internal(iter([(b"a", b"b")])) == [(b"a", b"b")]


def test_a_first_delivery_carries_the_headers_of_the_original_and_ours() -> None:
    assert sorted(delivery_headers(TASK)) == [
        (b"content-length", b"0"),
        (b"host", b"localhost"),
        (b"user-agent", b"hookware"),
        (b"x-appengine-queuename", b"mail"),
        (b"x-appengine-tasketa", b"1243814400.1"),
        (b"x-appengine-taskexecutioncount", b"0"),
        (b"x-appengine-taskname", b"77"),
        (b"x-appengine-taskretrycount", b"0"),
        (b"x-hookware-deadline", b"30.0"),
        (b"x-hookware-fence", b"4"),
        (b"x-hookware-task-id", b"77"),
    ]


def test_a_retry_carries_its_counts_and_the_previous_answer() -> None:
    task = replace(TASK, name="tn", attempt_count=6, crash_count=2, last_status=503)
    headers = dict(delivery_headers(task, host="app.example"))
    assert headers[b"x-appengine-taskname"] == b"tn"
    assert headers[b"x-appengine-taskretrycount"] == b"5"
    assert headers[b"x-appengine-taskexecutioncount"] == b"3"
    assert headers[b"x-appengine-taskpreviousresponse"] == b"503"
    assert headers[b"host"] == b"app.example"


def test_the_tasks_own_headers_come_first_and_repeat() -> None:
    task = replace(
        TASK, headers=(("x-foo", "a"), ("x-foo", "ü"), ("user-agent", "mine"), ("content-type", "x/y")), body=b"b"
    )
    headers = delivery_headers(task)
    assert headers[:4] == [(b"x-foo", b"a"), (b"x-foo", b"\xfc"), (b"user-agent", b"mine"), (b"content-type", b"x/y")]
    names = [name for name, _ in headers]
    assert names.count(b"user-agent") == names.count(b"content-type") == names.count(b"content-length") == 1
    assert dict(headers)[b"content-length"] == b"1"


def test_a_body_without_a_type_is_octets_and_no_body_has_no_type() -> None:
    assert dict(delivery_headers(replace(TASK, body=b"x")))[b"content-type"] == b"application/octet-stream"
    assert b"content-type" not in dict(delivery_headers(TASK))


def test_a_stored_row_cannot_forge_what_only_hookware_says() -> None:
    forged = (
        ("content-length", "99"),
        ("host", "evil"),
        ("transfer-encoding", "chunked"),
        ("x_appengine_queuename", "e"),
    )
    assert delivery_headers(replace(TASK, headers=forged)) == delivery_headers(TASK)


@given(st.integers(min_value=0, max_value=4_102_444_800_000_000))
def test_the_eta_header_is_seconds_as_python_writes_a_float(eta_us: int) -> None:
    value = dict(delivery_headers(replace(TASK, eta_us=eta_us)))[b"x-appengine-tasketa"]
    assert round(float(value) * 1_000_000) == eta_us
