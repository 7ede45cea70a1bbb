"""Pickled calls: any callable, if the app has a key; and nothing is loaded whose signature is not the app's."""

import hmac
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware import deferred, signed_pickle, taskqueue
from hookware.encryption import AesGcm
from hookware.errors import ConfigurationError, InvalidTaskError, PermanentTaskFailure
from hookware.store.base import TaskInfo
from tests.deferring import functions
from tests.deferring.functions import Greeter
from tests.stage import Stage

URL = "/_ah/queue/deferred"
KEY, OLD_KEY = b"k" * 32, b"old" * 11
EXPLODED: list[str] = []


def explode(text: str) -> None:
    EXPLODED.append(text)


class Bomb:
    """Does its harm when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ("loaded",)


async def run(stage: Stage, function: Any, *args: object, **options: Any) -> None:
    async with stage.running(deferred_pickle_key=KEY, **options):
        await deferred.defer_async(function, *args)
        await stage.settled()
    assert stage.task_count() == 0


@pytest.mark.parametrize(
    ("function", "args", "called"),
    [
        (functions.note, ("x",), [("x", 0)]),
        (functions.note_async, ("x",), [("x", True)]),
        (functions.typed, (1, object, {"a": {1, 2}}, b"x"), [(1, object, {"a": {1, 2}}, b"x", 0.5)]),
        (Greeter.classy, ("hi",), [("hi", "Greeter")]),
        (Greeter.static, ("hi",), ["hi"]),
        (Greeter, ("x",), ["made"]),
        (functions.CALLS.append, (5,), []),
        (print, (), []),
    ],
)
async def test_any_callable_may_be_deferred(
    stage: Stage, calls: list[Any], function: Any, args: tuple[object, ...], called: list[Any]
) -> None:
    await run(stage, function, *args)
    assert calls == called


@pytest.mark.parametrize("how", ["__call__", "greet", "greet_async", "instance"])
async def test_methods_and_instances_carry_their_object(stage: Stage, calls: list[Any], how: str) -> None:
    greeter = Greeter("Ada")
    await run(stage, greeter if how == "instance" else getattr(greeter, how), "hello")
    assert calls == ["made", ("hello", "Ada")]


async def test_a_function_that_is_allowed_by_name_travels_as_json_all_the_same(stage: Stage) -> None:
    async with stage.running(deferred_pickle_key=KEY, deferred_packages=["tests.deferring"], dispatch=False):
        await deferred.defer_async(functions.note, "x")
    assert stage.rows("SELECT body FROM hookware_task")[0].startswith(b'{"function":')


async def test_what_cannot_be_pickled_is_refused(stage: Stage) -> None:
    async with stage.running(deferred_pickle_key=KEY):
        with pytest.raises(InvalidTaskError, match="cannot be pickled"):
            deferred.defer(lambda: None)


async def delivered(stage: Stage, body: bytes, **options: Any) -> TaskInfo:
    async with stage.running(**options):
        await taskqueue.add_async(body, url=URL)
        return await stage.dead()


def signed(value: object, key: bytes = KEY, context: bytes = b'["default", null]') -> bytes:
    return signed_pickle.dumps(value, [key], context)


BOMB: tuple[object, ...] = (Bomb(), (), {})
FORGED = {
    "another key": signed(BOMB, b"x" * 32),
    "another queue": signed(BOMB, context=b'["mail", null]'),
    "another name": signed(BOMB, context=b'["default", "one"]'),
    "unsigned": signed_pickle.MAGIC + pickle.dumps(BOMB),
    "only pickled": pickle.dumps(BOMB),
    "no signature": signed_pickle.MAGIC,
    "short signature": signed(BOMB)[:40],
    "truncated": signed(BOMB)[:-1],
    "longer": signed(BOMB) + b".",
    "signature of another payload": signed("harmless")[: len(signed_pickle.MAGIC) + 32] + pickle.dumps(BOMB),
    "signature of the pickle alone": signed_pickle.MAGIC
    + hmac.digest(KEY, pickle.dumps(BOMB), "sha256")
    + pickle.dumps(BOMB),
}


@pytest.mark.parametrize("how", FORGED)
async def test_what_is_not_signed_for_this_task_is_never_loaded(stage: Stage, how: str) -> None:
    EXPLODED.clear()
    task = await delivered(stage, FORGED[how], deferred_pickle_key=KEY)
    assert (task.dead_reason, task.attempt_count) == ("permanent", 1)
    assert EXPLODED == []
    if how != "only pickled":
        assert "signature of the pickled call is wrong" in str(task.last_error)


async def test_with_pickle_off_nothing_is_loaded_however_it_is_signed(stage: Stage) -> None:
    EXPLODED.clear()
    task = await delivered(stage, signed(BOMB), deferred_packages=["tests.deferring"])
    assert task.dead_reason == "permanent"
    assert "pickle is off here" in str(task.last_error)
    assert EXPLODED == []


async def test_the_bomb_is_real(stage: Stage) -> None:
    EXPLODED.clear()
    await delivered(stage, signed(BOMB), deferred_pickle_key=KEY)
    assert EXPLODED == ["loaded"]


async def test_a_pickle_whose_code_is_gone_makes_the_task_dead(stage: Stage) -> None:
    body = signed((functions.quiet, (), {})).replace(b"quiet", b"quiex")
    assert functions.__name__.encode() in body
    start = len(signed_pickle.MAGIC) + 32
    pickled = body[start:]
    context = b'["default", null]'
    signature = hmac.digest(KEY, signed_pickle.MAGIC + len(context).to_bytes(4, "big") + context + pickled, "sha256")
    task = await delivered(stage, signed_pickle.MAGIC + signature + pickled, deferred_pickle_key=KEY)
    assert task.dead_reason == "permanent"
    assert "quiex" in str(task.last_error)


@pytest.mark.parametrize("value", ["text", (5, (), {}), (functions.quiet, [], {}), (functions.quiet, ())])
async def test_a_signed_value_that_is_no_call_makes_the_task_dead(stage: Stage, value: object) -> None:
    task = await delivered(stage, signed(value), deferred_pickle_key=KEY)
    assert task.dead_reason == "permanent"
    assert "none that defer() made" in str(task.last_error)


async def test_keys_are_rotated_first_signs_and_all_verify(stage: Stage, calls: list[Any]) -> None:
    async with stage.running(deferred_pickle_key=OLD_KEY, dispatch=False):
        await deferred.defer_async(functions.note, "old")
    async with stage.running(deferred_pickle_key=[KEY, OLD_KEY]):
        await stage.settled(1)
        await deferred.defer_async(functions.note, "new", _countdown=3600)
    stage.execute("UPDATE hookware_task SET eta_us = 0")
    async with stage.running(deferred_pickle_key=(KEY,)):
        await stage.settled(1)
    assert calls == [("old", 0), ("new", 0)]


@pytest.mark.parametrize("key", [b"short", "k" * 32, [b"k" * 32, b"short"], 5, [None]])
def test_a_key_that_is_too_short_or_no_bytes_is_refused_and_not_shown(plain_stage: Stage, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least 32 bytes") as refused:
        plain_stage.make(deferred_pickle_key=key)
    assert "short" not in str(refused.value)


def test_the_settings_do_not_show_the_key(plain_stage: Stage) -> None:
    assert "kkkk" not in repr(plain_stage.make(deferred_pickle_key=KEY).config)


CONTEXTS = st.binary(max_size=20)
KEYS = st.binary(min_size=32, max_size=40)


@given(st.binary() | st.text() | st.dictionaries(st.text(), st.integers()), st.lists(KEYS, min_size=1), CONTEXTS)
def test_what_was_signed_comes_back(value: object, keys: list[bytes], context: bytes) -> None:
    assert signed_pickle.loads(signed_pickle.dumps(value, keys[-1:], context), keys, context) == value


@given(st.data(), KEYS, KEYS, CONTEXTS, CONTEXTS)
def test_what_was_changed_is_not_loaded(
    data: st.DataObject, key: bytes, other: bytes, context: bytes, elsewhere: bytes
) -> None:
    EXPLODED.clear()
    body = bytearray(signed_pickle.dumps(Bomb(), [key], context))
    bit = data.draw(st.integers(-1, len(body) * 8 - 1))
    if bit >= 0:
        body[bit // 8] ^= 1 << bit % 8
    same = (bit, other, elsewhere) == (-1, key, context)
    if not same:
        with pytest.raises(PermanentTaskFailure, match="nothing of it was loaded"):
            signed_pickle.loads(bytes(body), [other if bit < 0 else key], elsewhere if bit < 0 else context)
        assert EXPLODED == []


@pytest.mark.parametrize("function", [functions.note, Greeter.static])
async def test_a_call_is_encrypted_like_any_payload(stage: Stage, calls: list[Any], function: Any) -> None:
    options: dict[str, Any] = {
        "codec": AesGcm({"a": KEY}),
        "deferred_pickle_key": KEY,
        "deferred_packages": ["tests.deferring"],
    }
    async with stage.running(dispatch=False, **options):
        await deferred.defer_async(function, "rosebud")
    [body] = stage.rows("SELECT body FROM hookware_task")
    assert b"rosebud" not in body
    assert b"deferring" not in body
    async with stage.running(**options):
        await stage.settled()
    assert calls in (["rosebud"], [("rosebud", 0)])
