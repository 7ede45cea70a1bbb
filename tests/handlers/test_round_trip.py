"""What `add` and `defer` carry arrives as it was, or is refused at the call: nothing is changed in silence."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    computed_field,
)

from hookware import TaskRouter, deferred
from hookware.errors import InvalidTaskError
from tests.deferring import functions
from tests.stage import Stage

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class Renamed(BaseModel):
    a: int = Field(default=1, serialization_alias="out")


class Aliased(BaseModel):
    a: int = Field(alias="theA")


class Excluded(BaseModel):
    a: int = Field(default=1, exclude=True)


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")

    a: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def double(self) -> int:
        return 2 * self.a


class Login(BaseModel):
    password: SecretStr


class Cached(BaseModel):
    a: int
    _seen: list[int] = PrivateAttr(default_factory=list)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    ratio: float


class Base(BaseModel):
    a: int


class Derived(Base):
    b: int = 1


@dataclass
class Point:
    x: float
    y: float


class Plain:
    """Has no equality of its own."""


def handler_of(annotation: Any) -> Any:
    """Make a task handler whose one parameter has this annotation."""

    def worker(x: Any) -> None: ...

    worker.__annotations__["x"] = annotation
    return TaskRouter().task_handler("/worker")(worker)


def sent(annotation: Any, value: object) -> object:
    """Give what the handler is called with."""
    signature = handler_of(annotation).signature
    return signature.read("POST", "application/json", b"", signature.write((value,), {}))["x"]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Computed, Computed(a=7)),
        (list[Computed], [Computed(a=7)]),
        (Aliased, Aliased(theA=7)),
        (Renamed, Renamed()),
        (Cached, Cached(a=7)),
        (Open, Open.model_validate({"ratio": 0.5, "more": [1]})),
        (Point, Point(1.5, -2)),
        (dict[int, date], {1: NOON.date()}),
        (set[UUID], {UUID(int=1), UUID(int=2)}),
        (tuple[int, str], (1, "a")),
        (Annotated[str, AfterValidator(str.lower)], "abc"),
        (Any, {"deep": [1, None, 0.5, "é", True]}),
    ],
    ids=repr,
)
def test_what_is_sent_arrives(annotation: Any, value: object) -> None:
    assert sent(annotation, value) == value


def test_json_in_a_text_arrives_parsed() -> None:
    assert sent(Json[list[int]], "[1, 2]") == [1, 2]


def test_what_is_not_a_number_arrives_as_that() -> None:
    not_a_number = float("nan")
    assert math.isnan(sent(float, not_a_number))  # type: ignore[arg-type]  # a number, by its annotation
    assert repr(sent(list[float], [not_a_number, 1.5])) == repr([not_a_number, 1.5])


def test_without_an_annotation_a_tuple_arrives_as_a_list() -> None:
    assert sent(Any, {"a": (1, 2)}) == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (SecretStr, SecretStr("pw")),
        (SecretStr, "pw"),
        (Login, Login(password=SecretStr("pw"))),
        (list[Login], [Login(password=SecretStr("pw"))]),
        (Any, SecretStr("pw")),
        (Renamed, Renamed(a=7)),
        (dict[str, Renamed], {"x": Renamed(a=7)}),
        (Excluded, Excluded(a=7)),
        (Base, Derived(a=1, b=2)),
        (Annotated[str, AfterValidator(str.swapcase)], "a"),
        (Any, NOON),
        (Any, {1: "a"}),
        (dict, {"at": NOON}),
        (Any, b"x"),
        (Any, math.inf),
        (Any, Decimal("1.5")),
        (Any, Point(1, 2)),
    ],
    ids=repr,
)
def test_what_would_arrive_changed_is_refused_and_named(annotation: Any, value: object) -> None:
    with pytest.raises(
        InvalidTaskError, match=r"of .*worker do not come back from JSON as they are: 'x', of type"
    ) as raised:
        sent(annotation, value)
    assert "pw" not in str(raised.value)


class Required(BaseModel):
    a: int = Field(exclude=True)


def test_what_could_not_be_read_is_refused_too() -> None:
    with pytest.raises(InvalidTaskError, match=r"do not come back.*from JSON they do not fit it: x\.a: Field required"):
        sent(Required, Required(a=7))


def test_what_nobody_can_compare_is_taken_at_its_word() -> None:
    travelling = Annotated[Any, PlainValidator(lambda _: Plain()), PlainSerializer(lambda _: "plain")]
    assert isinstance(sent(travelling, Plain()), Plain)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_carried_without_an_annotation(value: object) -> None:
    assert repr(sent(Any, value)) == repr(value)


@given(
    # Older offsets are not of whole minutes, as ISO 8601 has them.
    st.datetimes(min_value=datetime(1980, 1, 1), timezones=st.timezones()),  # noqa: DTZ001 - hypothesis adds the zone
    st.decimals(allow_nan=False, allow_infinity=False),
    st.binary(),
    st.timedeltas(),
)
@example(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")), Decimal(1), b"", timedelta(1))
def test_annotated_values_are_never_refused(at: datetime, amount: Decimal, raw: bytes, wait: timedelta) -> None:
    assert str(sent(datetime, at)) == str(at)
    assert str(sent(Decimal, amount)) == str(amount)
    assert sent(bytes, raw) == raw
    assert sent(timedelta, wait) == wait


async def test_a_deferred_call_is_refused_too(stage: Stage) -> None:
    stage.router.deferred_function(functions.anything)
    async with stage.running(dispatch=False):
        with pytest.raises(
            InvalidTaskError, match="anything do not come back from JSON as they are: 'what', of type dat"
        ):
            deferred.defer(functions.anything, NOON)
        deferred.defer(functions.anything, NOON.isoformat())
    assert stage.task_count() == 1
