"""More queues than one overview shows: lists, counts and actions leave out none of their tasks."""

import pytest

from hookware.core.filter import FilterError
from hookware.core.lifecycle import State
from hookware.core.queue import Lane
from hookware.store.sql import choosing
from hookware.store.sql.overview import MOST_QUEUES
from tests.databases import EVERY_DATABASE_ON_A_LOOP
from tests.insight.stored import World

pytestmark = EVERY_DATABASE_ON_A_LOOP

NAMES = [f"q{n:03d}" for n in range(MOST_QUEUES + 30)]
LAST = NAMES[-1]


async def test_waiting_tasks_of_all_queues_are_listed_and_counted(world: World) -> None:
    for name in NAMES:
        world.put(queue_name=name, lane=name)
    assert (await world.insight.count("state:waiting")).number == len(NAMES)
    assert (await world.insight.count(f"state:waiting queue:{LAST}")).number == 1
    seen, after = set[str](), None
    while True:
        page = await world.insight.list("state:waiting", after=after, limit=100)
        seen |= {task.queue_name for task in page.tasks}
        if (after := page.after) is None:
            break
    assert seen == set(NAMES)


async def test_dead_tasks_of_all_queues_are_revived(world: World) -> None:
    for name in NAMES:
        world.put(State.DEAD, queue_name=name, lane=name)
    done = await world.insight.bulk("retry", "state:dead")
    assert (done.done_count, done.is_complete) == (len(NAMES), True)
    assert world.stage.rows("SELECT count(*) FROM hookware_task WHERE state = 2") == [0]


async def test_one_queue_is_found_wherever_it_stands(world: World) -> None:
    for name in NAMES:
        world.put(queue_name=name, lane=name)
    world.put(State.DEAD, queue_name=LAST, lane=LAST, last_error="the cause")
    world.put(count=2, queue_name=LAST, lane=str(Lane(LAST, 7)), last_error="the same")
    queue = await world.insight.queue(LAST)
    assert (queue.name, queue.due.number, queue.dead.number) == (LAST, 3, 1)
    errors = await world.insight.errors(queue_name=LAST)
    assert sum(group.dead_count + group.retrying_count for group in errors.groups) == 3
    cancelled = await world.insight.bulk("cancel", f"state:waiting queue:{LAST}")
    assert cancelled.done_count == 3


async def test_who_has_too_many_queues_is_told_to_name_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_MOST_PLACES", 2)
    for name in NAMES[:3]:
        world.put(queue_name=name, lane=name)
    with pytest.raises(FilterError, match="more than 2 queues: say which are meant, as queue:NAME"):
        await world.insight.count("state:waiting")
    assert (await world.insight.count(f"state:waiting queue:{NAMES[2]}")).number == 1


async def test_an_error_is_found_by_its_very_text_whatever_its_letters(world: World) -> None:
    world.put(State.DEAD, last_error="Überlauf")
    for text in ("Überlauf", "ÜBERLAUF"[1:], "lauf"):
        assert (await world.insight.count(f"error:{text}")).number == 1, text
    assert (await world.insight.count("error:anders")).number == 0
