"""Rows of the task table with anything in them: what hypothesis makes up, and how it gets into a database."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hypothesis import strategies as st

from hookware.core.task import NewTask
from hookware.env import Env
from hookware.store.sql.rows import to_row
from hookware.store.sql.tables import task_table
from tests.databases import Look

MINUTE_US = 60_000_000
_NULLABLE = frozenset(column.name for column in task_table.c if column.nullable)
_BYTES = frozenset({"body"})
_LENGTHS = {
    "lane": 120, "tag": 500, "dedup_key": 500, "on_conflict": 10, "fair_key": 500, "limit_key": 500,
    "queue_name": 100, "name": 500, "method": 8, "owner": 200, "dead_reason": 20,
}  # fmt: skip
_BITS = {"state": 16, "last_status": 16, "attempt_count": 32, "crash_count": 32, "depth": 32, "record_count": 32}
_TEXTS = frozenset({"url", "headers", "retry_options", "last_error", "progress", *_LENGTHS})
_COLUMNS = tuple(column.name for column in task_table.c if column.name not in ("id", "state"))


@dataclass(frozen=True, slots=True)
class BadText:
    """Bytes that SQLite is to take for text."""

    data: bytes


Row = dict[str, object]


def good_row(number: int, now_us: int) -> Row:
    """Give the row of a task that `/good` runs."""
    task = NewTask(
        id=_env().new_id(), queue_name="default", name=None, method="GET", url=f"/good?key={number}", headers=(),
        body=b"",
    )  # fmt: skip
    rest: Row = dict.fromkeys(_NULLABLE)
    return {**rest, **to_row(task, now_us)}


@cache
def _env() -> Env:
    return Env()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


_options = st.dictionaries(
    st.sampled_from(["task_retry_limit", "task_age_limit", "min_backoff_seconds", "max_backoff_seconds"]), _json
)
_headers = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=3)
_MORE = {
    "headers": (_json | _headers).map(json.dumps),
    "retry_options": (_json | _options).map(json.dumps),
    "url": st.text(max_size=8).map("/".__add__) | st.sampled_from(["", "//", "/%zz", "/../x", "http://x/", "/ä"]),
    "deadline_us": st.sampled_from([0, -1, 1, 2**63 - 1]),
}


def _integers(bits: int) -> st.SearchStrategy[int]:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.integers(least, most) | st.sampled_from([least, -1, 0, 1, most - 1, most])


def _typed(name: str) -> st.SearchStrategy[object]:
    """What PostgreSQL lets into a column: every code point but NUL and half ones."""
    own: st.SearchStrategy[object]
    if name in _TEXTS:
        characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
        own = st.text(characters, max_size=min(_LENGTHS.get(name, 30), 30))
    elif name in _BYTES:
        own = st.binary(max_size=20)
    else:
        own = _integers(_BITS.get(name, 64))
    if name in _MORE:
        own |= _MORE[name].filter(lambda value: "\0" not in str(value)).filter(_encodes)
    return (own | st.none()) if name in _NULLABLE else own


def _encodes(value: object) -> bool:
    return str(value).encode(errors="replace") == str(value).encode(errors="surrogatepass")


def _untyped(name: str) -> st.SearchStrategy[object]:
    """What SQLite lets into any column."""
    anything = (
        st.binary(max_size=20)
        | st.binary(min_size=1, max_size=20).map(BadText)
        | _integers(64)
        | st.floats(allow_nan=False)
        | st.just("9" * 30)
    )
    return anything | _typed(name)


def damaged_rows(*, untyped: bool, now_us: int) -> st.SearchStrategy[list[Row]]:
    """Give due tasks and ended leases, in which some columns, or all, hold anything."""
    values = _untyped if untyped else _typed
    changes = st.one_of(
        st.fixed_dictionaries({}, optional={name: values(name) for name in _COLUMNS}),
        st.sampled_from(_COLUMNS).flatmap(lambda name: st.fixed_dictionaries({name: values(name)})),
    )
    ids = st.none() if not untyped else st.none() | _untyped("id").filter(_may_be_key)
    leased: Row = {"state": 1, "lease_until_us": now_us - MINUTE_US, "owner": "gone", "attempt_count": 1}
    states = st.sampled_from([{}, {}, leased])

    def row(state: Row, changed: Row, key: object) -> Row:
        keyed: Row = {} if key is None else {"id": key}
        return {**good_row(0, now_us), "url": "/damaged", **state, **changed, **keyed}

    return st.lists(st.builds(row, states, changes, ids), min_size=1, max_size=20)


def _may_be_key(value: object) -> bool:
    return value is not None


def put(look: Look, rows: Sequence[Row]) -> None:
    """Commit rows; one whose key is there already is left out."""
    for row in rows:
        places = ", ".join("CAST(? AS TEXT)" if isinstance(value, BadText) else "?" for value in row.values())
        values = (value.data if isinstance(value, BadText) else value for value in row.values())
        look.execute(f"INSERT INTO hookware_task ({', '.join(row)}) VALUES ({places}) ON CONFLICT DO NOTHING", *values)
