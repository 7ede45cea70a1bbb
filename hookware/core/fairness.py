"""Which of the due tasks with keys begin: keys in turn, and of each limit key no more than may run at once."""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Candidate(NamedTuple):
    """A due task that has keys; "" is no key. Of two with one fair key, the one that is given first is older."""

    task_id: int
    fair_key: str
    limit_key: str


class Choice(NamedTuple):
    """What begins, in the order of turns.

    `last_key` is the fair key after which the next turns begin; `held_back`: some could not begin before a task with
    the same limit key ends.
    """

    chosen: list[int]
    last_key: str
    held_back: bool


def choose(
    candidates: Iterable[Candidate], count: int, *, limit: int, running: Mapping[str, int], last_key: str
) -> Choice:
    """Choose up to `count` tasks.

    Args:
        candidates: the due tasks, by ETA.
        count: how many may begin.
        limit: how many tasks with one limit key may run at once.
        running: how many run already of each limit key.
        last_key: the fair key that had the last turn.
    """
    turns = _in_turn(candidates, last_key)
    taken, chosen, held_back = Counter(running), list[int](), False
    while turns and len(chosen) < count:
        fair_key, waiting = turns.popleft()
        while waiting:
            one = waiting.popleft()
            if one.limit_key and taken[one.limit_key] >= limit:
                held_back = True
                continue
            taken[one.limit_key] += 1
            chosen.append(one.task_id)
            last_key = fair_key
            turns.append((fair_key, waiting))
            break
    return Choice(chosen, last_key, held_back)


def _in_turn(candidates: Iterable[Candidate], last_key: str) -> deque[tuple[str, deque[Candidate]]]:
    by_key: dict[str, deque[Candidate]] = {}
    for one in candidates:
        by_key.setdefault(one.fair_key, deque()).append(one)
    keys = sorted(by_key)
    start = bisect_right(keys, last_key)
    return deque((key, by_key[key]) for key in keys[start:] + keys[:start])
