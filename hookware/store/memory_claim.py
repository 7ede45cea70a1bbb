"""Which tasks of the store in memory may be claimed: the rules of `store/sql/board.py`, among all rows at once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hookware.core.allowance import NO_STATE, Allowance, QueueState, allowance, effective
from hookware.core.fairness import Candidate, choose
from hookware.core.lifecycle import State
from hookware.core.queue import QueueSettings, last_turn, share_slots, turn_order
from hookware.store.memory_rows import Row


@dataclass(slots=True)
class Queues:
    """What is set and configured of queues, and whose turn it is."""

    settings: Mapping[str, QueueSettings] = field(default_factory=dict)
    states: dict[str, QueueState] = field(default_factory=dict)
    cursors: dict[str, str] = field(default_factory=dict)
    keyed_first: dict[tuple[str, int], bool] = field(default_factory=dict)
    last_queue: str = ""

    def of(self, name: str) -> QueueSettings:
        """Give a queue's settings as they are now."""
        configured = self.settings.get(name) or QueueSettings(name=name)
        return effective(configured, self.states.get(name, NO_STATE))

    def is_set(self, name: str) -> bool:
        """Say whether a queue is paused, or set otherwise than configured."""
        state = self.states.get(name, NO_STATE)
        return state.paused or state.overrides is not None

    def change(self, name: str, **changes: object) -> None:
        """Set something of a queue."""
        self.states[name] = replace(self.states.get(name, NO_STATE), **changes)  # type: ignore[arg-type]  # by callers


class Choosing:
    """One claim's view of all rows."""

    def __init__(self, rows: Iterable[Row], queues: Queues, exclude: frozenset[str], now_us: int) -> None:
        self._queues, self._now_us = queues, now_us
        self._waiting: dict[str, list[Row]] = {}
        self._running: dict[str, Counter[str]] = {}
        self._held_back: set[str] = set()
        self._cursors: dict[str, str] = {}
        self._shared_groups: set[tuple[str, int]] = set()
        for row in sorted(rows, key=lambda row: (row.eta_us, row.task.id)):
            name = row.task.queue_name
            if row.state is State.PENDING and name not in exclude and not queues.states.get(name, NO_STATE).paused:
                self._waiting.setdefault(name, []).append(row)
            elif row.state is State.LEASED and row.lease_until_us > now_us:
                self._running.setdefault(name, Counter())[row.task.keys.limit_key or ""] += 1
        self._allowed = {name: self._allowance(name) for name in self._waiting}

    def chosen(self, slots: int) -> list[Row]:
        """Give the rows whose turn it is."""
        due = [name for name, rows in self._waiting.items() if rows[0].eta_us <= self._now_us]
        order = turn_order(due, self._queues.last_queue)
        waiting = {name: min(slots, self._allowed[name].count) for name in order}
        picked: dict[str, list[Row]] = {name: [] for name in order}
        while more := {name: n for name, n in share_slots(waiting, slots).items() if n > len(picked[name])}:
            for name, share in more.items():
                picked[name] = self._pick(name, share)
                if len(picked[name]) < share:
                    waiting[name] = len(picked[name])
        self._queues.last_queue = last_turn(
            order, {name: len(some) for name, some in picked.items()}, self._queues.last_queue
        )
        return [row for some in picked.values() for row in some]

    def begun(self, counts: Mapping[str, int]) -> None:
        """Take the tokens of what begins, and note who had the last turn."""
        self._queues.cursors |= self._cursors
        for group in self._shared_groups:
            self._queues.keyed_first[group] = not self._queues.keyed_first.get(group, False)
        for name, count in counts.items():
            left = self._allowed[name].left(count, self._queues.of(name), self._now_us)
            if left.bucket is not None:
                self._queues.change(name, bucket=left.bucket)

    def until_next(self, blocked: Iterable[str] = ()) -> tuple[int | None, bool]:
        """Give the microseconds until the next task may begin, None: none; and whether one waits for another's end."""
        first, held_back, blocked = None, False, set(blocked)
        for name, rows in self._waiting.items():
            allowed = self._allowed[name]
            for lane, eta_us in _first_etas(rows).items():
                due_at_us = eta_us
                if lane in blocked or (eta_us <= self._now_us and allowed.count <= 0 and allowed.ready_us is None):
                    held_back = True
                    continue
                if eta_us <= self._now_us and allowed.count <= 0 and allowed.ready_us is not None:
                    due_at_us = max(eta_us, allowed.ready_us)
                first = due_at_us if first is None else min(first, due_at_us)
        return None if first is None else max(0, first - self._now_us), held_back

    @property
    def held_back(self) -> set[str]:
        """The lanes in which tasks wait for one with the same limit key to end."""
        return self._held_back

    def _allowance(self, name: str) -> Allowance:
        running = self._running.get(name, Counter()).total()
        return allowance(self._queues.of(name), self._queues.states.get(name, NO_STATE), running, self._now_us)

    def _pick(self, name: str, count: int) -> list[Row]:
        due = [row for row in self._waiting[name] if row.eta_us <= self._now_us]
        rows: list[Row] = []
        for priority in sorted({row.task.keys.priority for row in due}, reverse=True):
            if len(rows) < count:
                rows += self._shared([row for row in due if row.task.keys.priority == priority], count - len(rows))
        return rows

    def _shared(self, due: list[Row], count: int) -> list[Row]:
        lanes: dict[str, list[Row]] = {}
        for row in due:
            lanes.setdefault(row.task.lane, []).append(row)
        if len(lanes) == 1:
            return self._of_lane(due, count)
        group = due[0].task.queue_name, due[0].task.keys.priority
        self._shared_groups.add(group)
        one, other = (lanes[lane] for lane in sorted(lanes, reverse=self._queues.keyed_first.get(group, False)))
        first = self._of_lane(one, -(-count // 2))
        second = self._of_lane(other, count - len(first)) if count > len(first) else []
        if len(first) + len(second) < count:
            first = self._of_lane(one, count - len(second))
        return first + second

    def _of_lane(self, due: list[Row], count: int) -> list[Row]:
        lane, name = due[0].task.lane, due[0].task.queue_name
        if not due[0].task.keys.are_shared:
            return due[:count]
        by_id = {row.task.id: row for row in due}
        keys = {row.task.id: row.task.keys for row in due}
        choice = choose(
            [Candidate(i, each.fair_key or "", each.limit_key or "") for i, each in keys.items()], count,
            limit=self._queues.of(name).limit_per_key,
            running=self._running.get(name, Counter()),
            last_key=self._queues.cursors.get(lane, ""),
        )  # fmt: skip
        self._cursors[lane] = choice.last_key
        if choice.held_back and len(choice.chosen) < count:
            self._held_back.add(lane)
        else:
            self._held_back.discard(lane)
        return [by_id[task_id] for task_id in choice.chosen]


def _first_etas(rows: Iterable[Row]) -> dict[str, int]:
    etas: dict[str, int] = {}
    for row in rows:
        etas.setdefault(row.task.lane, row.eta_us)
    return etas
