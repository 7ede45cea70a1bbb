"""AES-256-GCM: what was encrypted comes back for its own task, with its own key, unchanged, or not at all."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hookware import PermanentTaskFailure, TaskIdentity, taskqueue
from hookware.core.lifecycle import Retry
from hookware.encryption import AesGcm
from hookware.errors import ConfigurationError, Error
from tests.stage import AT_ONCE, Stage

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRET = b"the secret"

KEY_IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=100)
KEYS = st.dictionaries(KEY_IDS, st.binary(min_size=32, max_size=32), min_size=1, max_size=4)
TASKS = st.builds(
    TaskIdentity,
    id=st.integers(1, 2**63 - 1),
    queue_name=st.text("abc-", min_size=1, max_size=5),
    name=st.none() | st.text("abc", min_size=1),
)
TASK = TaskIdentity(id=7, queue_name="default", name=None)


@given(st.binary(), KEYS, TASKS)
def test_any_bytes_come_back(body: bytes, keys: dict[str, bytes], task: TaskIdentity) -> None:
    codec = AesGcm(keys)
    stored = codec.encode(body, task)
    assert codec.decode(stored, task) == body
    assert len(body) < 8 or body not in stored[2 + stored[1] :]  # after the head, where the key's id is in clear


def test_the_same_payload_never_looks_the_same_twice() -> None:
    codec = AesGcm({"a": KEY})
    assert len({codec.encode(SECRET, TASK) for _ in range(100)}) == 100


@given(st.data(), st.binary(max_size=30), KEYS, TASKS)
def test_any_flipped_bit_is_refused(
    data: st.DataObject, body: bytes, keys: dict[str, bytes], task: TaskIdentity
) -> None:
    codec = AesGcm(keys)
    stored = bytearray(codec.encode(body, task))
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Error):
        codec.decode(bytes(stored), task)


def test_every_single_bit_counts() -> None:
    codec = AesGcm({"a": KEY, "c": KEY, "i": KEY})
    stored = codec.encode(SECRET, TASK)
    for bit in range(len(stored) * 8):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Error):
            codec.decode(bytes(changed), TASK)


def test_a_later_version_is_told_apart() -> None:
    codec = AesGcm({"a": KEY})
    with pytest.raises(PermanentTaskFailure, match="is not one that AesGcm made"):
        codec.decode(b"\2" + codec.encode(SECRET, TASK)[1:], TASK)


def test_every_cut_is_refused() -> None:
    codec = AesGcm({"a": KEY})
    stored = codec.encode(SECRET, TASK)
    for changed in [*(stored[:end] for end in range(len(stored))), stored + b"\0", b"", SECRET, b"\1\0" + stored[3:]]:
        with pytest.raises(Error):
            codec.decode(changed, TASK)


@given(st.binary(max_size=100))
def test_any_other_bytes_are_refused(stored: bytes) -> None:
    with pytest.raises(Error):
        AesGcm({"a": KEY}).decode(stored, TASK)


@given(st.binary(), TASKS, TASKS)
@example(b"x", TaskIdentity(id=1, queue_name="a", name=None), TaskIdentity(id=1, queue_name="b", name=None))
@example(b"x", TaskIdentity(id=1, queue_name="a", name=None), TaskIdentity(id=2, queue_name="a", name=None))
def test_a_payload_is_good_for_its_own_task_only(body: bytes, task: TaskIdentity, other: TaskIdentity) -> None:
    assume((task.id, task.queue_name) != (other.id, other.queue_name))
    codec = AesGcm({"a": KEY})
    with pytest.raises(PermanentTaskFailure, match="moved here from another task"):
        codec.decode(codec.encode(body, task), other)


@given(st.binary(), KEYS, KEY_IDS, st.binary(min_size=32, max_size=32))
def test_keys_rotate_the_first_encrypts_and_all_decrypt(
    body: bytes, old_keys: dict[str, bytes], key_id: str, key: bytes
) -> None:
    assume(key_id not in old_keys)
    old, new = AesGcm(old_keys), AesGcm({key_id: key, **old_keys})
    assert new.decode(old.encode(body, TASK), TASK) == body
    stored = new.encode(body, TASK)
    assert AesGcm({key_id: key}).decode(stored, TASK) == body
    with pytest.raises(ConfigurationError, match="is not among those of AesGcm"):
        old.decode(stored, TASK)


@pytest.mark.parametrize(
    "keys",
    [
        {}, None, KEY, [KEY], {"a": b"short"}, {"a": "k" * 32}, {"a": None}, {"": KEY}, {"é": KEY}, {"a\n": KEY},
        {"x" * 101: KEY}, {5: KEY},
    ],
)  # fmt: skip
def test_keys_that_are_none_are_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AesGcm(keys)
    assert "kkk" not in str(refused.value)
    assert "short" not in str(refused.value)


def test_nothing_shows_a_key() -> None:
    assert repr(AesGcm({"2026": KEY, "old": OTHER_KEY})) == "AesGcm(keys: 2026, old)"


# In the database.


async def stored(stage: Stage, *bodies: str) -> None:
    async with stage.running(codec=AesGcm({"2026": KEY}), dispatch=False):
        for body in bodies:
            await taskqueue.add_async(params={"key": body}, url="/worker", retry_options=AT_ONCE)


def listening(stage: Stage) -> list[str]:
    given: list[str] = []

    @stage.task_handler("/worker")
    def worker(key: str) -> None:
        given.append(key)

    return given


async def test_the_file_of_the_database_does_not_hold_the_secret(stage: Stage) -> None:
    given = listening(stage)
    async with stage.running(codec=AesGcm({"2026": KEY}), dispatch=False):
        await taskqueue.add_async(params={"key": "rosebud"}, url="/worker")
    files = list(stage.path.parent.glob("test.db*"))
    assert b"hookware_task" in b"".join(file.read_bytes() for file in files)
    assert b"rosebud" not in b"".join(file.read_bytes() for file in files)
    async with stage.running(codec=AesGcm({"2026": KEY})):
        await stage.settled()
    assert given == ["rosebud"]


@pytest.mark.parametrize("harm", ["swap", "move", "flip", "cut", "other key"])
async def test_a_row_that_was_changed_makes_its_task_dead_and_says_which_key(stage: Stage, harm: str) -> None:
    given = listening(stage)
    await stored(stage, "rosebud", "snowball")
    match harm:
        case "swap":
            (first, one), (second, other) = stage.rows("SELECT id, body FROM hookware_task")
            stage.execute("UPDATE hookware_task SET body = ? WHERE id = ?", other, first)
            stage.execute("UPDATE hookware_task SET body = ? WHERE id = ?", one, second)
        case "move":
            stage.execute("UPDATE hookware_task SET queue_name = 'mail'")
        case "flip":
            for task_id, body in stage.rows("SELECT id, body FROM hookware_task"):
                stage.execute(
                    "UPDATE hookware_task SET body = ? WHERE id = ?", body[:-1] + bytes([body[-1] ^ 1]), task_id
                )
        case "cut":
            stage.execute("UPDATE hookware_task SET body = substr(body, 1, length(body) - 1)")
    async with stage.running(codec=AesGcm({"2026": OTHER_KEY if harm == "other key" else KEY})) as hookware:
        await stage.settled(2)
        tasks = await hookware.inspector.list_tasks()
    assert [(task.dead_reason, task.attempt_count) for task in tasks] == [("permanent", 1)] * 2
    assert all("with the key '2026'" in str(task.last_error) for task in tasks)
    assert given == []


async def test_a_task_whose_key_is_missing_is_tried_again_until_it_comes(stage: Stage) -> None:
    given = listening(stage)
    await stored(stage, "rosebud")
    async with stage.running(codec=AesGcm({"2027": OTHER_KEY})):
        [event, *_] = await stage.settled()
    assert isinstance(event.decision, Retry)
    assert "the key '2026', which is not among those of AesGcm (2027)" in event.decision.error
    async with stage.running(codec=AesGcm({"2027": OTHER_KEY, "2026": KEY})):
        await stage.settled()
    assert given == ["rosebud"]


@pytest.mark.slow
def test_without_the_extra_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['cryptography'] = None; import hookware; import hookware.encryption"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'ImportError: encryption needs cryptography: pip install "hookware[encryption]"' in result.stderr
