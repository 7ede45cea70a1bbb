"""What one claim knows of the queues: where tasks are due, how many may begin, and the rows whose turn it is."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, select

from hookware.core.allowance import NO_STATE, Allowance, QueueState, allowance, effective
from hookware.core.queue import DEFAULT_QUEUE, Lane, QueueSettings, by_priority, lane_of
from hookware.core.rate_limit import Bucket
from hookware.core.retention import NO_RETENTION, Retention, retention
from hookware.core.retry import RetryOptions
from hookware.store.sql import keyed, queues
from hookware.store.sql.keyed import Turn
from hookware.store.sql.outlook import Look, Outlook
from hookware.store.sql.queues import NOTHING_RUNS, Running
from hookware.store.sql.read import PENDING, Row, read
from hookware.store.sql.tables import task_table

_SHORTLY_US = 10_000
"""When to look again for a queue whose row another process has locked just now."""

_TRUSTED_SECONDS: Final = 5.0
"""How long a look is trusted: what is in the way is found out at once, but a look that has become slow is not."""

_ODD_LOOKS: Final = 100
"""How many looks are taken, two in a claim, after one met tasks which need it."""

_columns = task_table.c
_DUE = (
    select(task_table)
    .where(
        PENDING,
        _columns.lane == bindparam("lane"),
        _columns.eta_us >= bindparam("floor", type_=BigInteger()),
        _columns.eta_us <= bindparam("now", type_=BigInteger()),
    )
    .order_by(_columns.eta_us, _columns.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)


class Guess(NamedTuple):
    """A lane, its queue, and how tasks are tried again there that do not say.

    `limits` are how many tasks may run at once in those queues whose full slots alone keep tasks waiting.
    """

    lane: str
    queue_name: str
    retry: RetryOptions
    limits: Mapping[str, int] = {}


@dataclass(slots=True)
class Desk:
    """What a store keeps from one claim to the next.

    `turns` are the keys that had the last turn, by lane. `keyed_first`: the queues and priorities where, of a plain and
    a keyed lane, the keyed one comes first in the next claim. `counted`: the queues with a limit, as last seen.
    `retention` is that of the settings as last seen.
    """

    outlook: Outlook
    settings: Mapping[str, QueueSettings] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)
    keyed_first: dict[tuple[str, int], bool] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    retention: Retention = NO_RETENTION
    _plain_lane: str | None = DEFAULT_QUEUE
    _odd_count: int = 0
    _overridden: Mapping[str, QueueState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.retention = retention(self.settings.values())

    def of_queue(self, name: str, state: QueueState) -> QueueSettings:
        """Give a queue's settings as they are in this state."""
        return effective(self.settings.get(name) or QueueSettings(name=name), state)

    def learn(self, states: Mapping[str, QueueState]) -> None:
        """Take note of what is set at run time, for what asks the database nothing of its own."""
        overridden = {name: state for name, state in states.items() if state.overrides}
        if {n: s.overrides for n, s in overridden.items()} != {n: s.overrides for n, s in self._overridden.items()}:
            self._overridden = overridden
            configured = {name: self.of_queue(name, NO_STATE) for name in self.settings}
            now = {name: self.of_queue(name, state) for name, state in overridden.items()}
            self.retention = retention((configured | now).values())

    def note_lanes(self, seen: Look, now_us: int) -> None:
        """Take note of a look: it shows whether nothing but the order decides which task is next."""
        self._odd_count = max(0, self._odd_count - 1)
        due = [text for text, eta_us in seen.etas.items() if eta_us <= now_us and not self._is_shut(text, seen)]
        if due:
            self._plain_lane = due[0] if len(due) == 1 and self._is_plain(lane_of(due[0]), seen.states) else None

    def note_odd(self) -> None:
        """Take note that tasks of the plain lane need a closer look: those with names, say, which come in numbers."""
        self._odd_count = _ODD_LOOKS

    def note_plain(self) -> None:
        """Take note that they do not."""
        self._odd_count = 0

    @property
    def guess(self) -> Guess | None:
        """Where all that is due most likely lies, with nothing but the order to decide; None: look."""
        lane = self._plain_lane
        if lane is None or self._odd_count or self.outlook.age > _TRUSTED_SECONDS or self.outlook.is_slow:
            return None
        queue_name = lane_of(lane).queue_name
        limits = {name: most for name in self.counted if (most := self._limit(name)) is not None}
        return Guess(lane, queue_name, self.of_queue(queue_name, NO_STATE).retry, limits)

    def _limit(self, queue_name: str) -> int | None:
        """Give how many tasks of a queue may run at once, as it is configured."""
        return self.of_queue(queue_name, NO_STATE).max_concurrent_requests

    def _is_shut(self, text: str, seen: Look) -> bool:
        """Say whether a claim in one statement sees by itself that nothing of a lane may begin."""
        name = lane_of(text).queue_name
        state, limit = seen.states.get(name, NO_STATE), self._limit(name)
        is_full = limit is not None and not state.overrides and seen.running.get(name, 0) >= limit
        return state.paused or is_full

    def _is_plain(self, lane: Lane, states: Mapping[str, QueueState]) -> bool:
        state = states.get(lane.queue_name, NO_STATE)
        return not (lane.keyed or state.paused or state.overrides or self.of_queue(lane.queue_name, state).is_limited)


class Board:
    """The queues in which tasks wait, as one transaction sees them."""

    def __init__(self, desk: Desk, seen: Look, exclude: frozenset[str], now_us: int) -> None:
        self._desk, self._now_us = desk, now_us
        self._states, self._seen_running = seen.states, seen.running
        desk.counted = frozenset(filter(self._counts, desk.settings.keys() | seen.states.keys()))
        self._lanes: dict[str, dict[Lane, int]] = {}
        self._texts: dict[Lane, str] = {}
        self._allowed: dict[str, Allowance] = {}
        self._running: dict[str, Running] = {}
        self._held_back: set[Lane] = set()
        self._turns: dict[str, Turn] = {}
        self._shared_groups: set[tuple[str, int]] = set()
        for text, eta_us in seen.etas.items():
            lane = lane_of(text)
            if lane.queue_name not in exclude and not seen.states.get(lane.queue_name, NO_STATE).paused:
                self._lanes.setdefault(lane.queue_name, {})[lane] = eta_us
                self._texts[lane] = text

    def settings(self, queue_name: str) -> QueueSettings:
        """Give a queue's settings as they are now."""
        return self._desk.of_queue(queue_name, self._states.get(queue_name, NO_STATE))

    @property
    def due_queues(self) -> list[str]:
        """The queues in which a task is due, whether or not it may begin."""
        return [name for name, lanes in self._lanes.items() if min(lanes.values()) <= self._now_us]

    def agree(self, connection: Connection, *, locking: bool) -> None:
        """See how many tasks of each due queue may begin; `locking`: and let it stay true until the commit."""
        limited = [name for name in self.due_queues if self._is_limited(name) and not (locking and self._is_shut(name))]
        if not limited:
            return
        states = queues.lock(connection, limited) if locking else self._states
        self._states = {**self._states, **states}
        # How many run of each key is asked by those only who are about to choose.
        counted = [name for name in limited if self._counts(name) or (locking and self._has_keys(name))]
        self._running = queues.running(connection, counted, self._now_us) if counted else {}
        for name in limited:
            if locking and name not in states:
                self._allowed[name] = Allowance(0, self._now_us + _SHORTLY_US)
                continue
            running = self._running.get(name, NOTHING_RUNS)
            state = states.get(name, NO_STATE)
            self._allowed[name] = allowance(self.settings(name), state, running.total, self._now_us)

    def _is_shut(self, queue_name: str) -> bool:
        """See whether nothing of a queue may begin by what was seen before any lock: it can only be less by now."""
        running, state = self._seen_running.get(queue_name, 0), self._states.get(queue_name, NO_STATE)
        allowed = allowance(self.settings(queue_name), state, running, self._now_us)
        if allowed.count <= 0:
            self._allowed[queue_name] = allowed
        return allowed.count <= 0

    def may_begin(self, queue_name: str) -> int:
        """Say how many tasks of a queue may begin, at most."""
        allowed = self._allowed.get(queue_name)
        return 2**31 if allowed is None else max(0, allowed.count)

    def rows(self, connection: Connection, queue_name: str, count: int) -> list[Row]:
        """Lock and read up to `count` due tasks of a queue: the highest priority first, then by ETA."""
        due = [lane for lane, eta_us in self._lanes[queue_name].items() if eta_us <= self._now_us]
        rows: list[Row] = []
        for group in by_priority(due):
            if len(rows) < count:
                rows += self._shared(connection, group, count - len(rows))
        return rows

    def begun(self, counts: Mapping[str, int]) -> dict[str, Bucket]:
        """Take note of how many tasks begin; give the buckets that are to be stored."""
        buckets: dict[str, Bucket] = {}
        for name in self._allowed.keys() & counts.keys():
            left = self._allowed[name] = self._allowed[name].left(counts[name], self.settings(name), self._now_us)
            if left.bucket is not None:
                buckets[name] = left.bucket
        self._desk.turns.update(self._turns)
        for group in self._shared_groups:
            self._desk.keyed_first[group] = not self._desk.keyed_first.get(group, False)
        return buckets

    def until_next(self) -> tuple[int | None, bool]:
        """Give the microseconds until the next task may begin, None: none; and whether one waits for another's end."""
        first, held_back = None, False
        for lane, eta_us in self._open_lanes():
            allowed = self._allowed.get(lane.queue_name)
            ready_us = eta_us
            if eta_us <= self._now_us and allowed is not None and allowed.count <= 0:
                if allowed.ready_us is None:
                    held_back = True
                    continue
                ready_us = max(eta_us, allowed.ready_us)
            first = ready_us if first is None else min(first, ready_us)
        return None if first is None else max(0, first - self._now_us), held_back or bool(self._held_back)

    def carry_over(self, earlier: "Board") -> None:
        """Take over what a board of the same transaction found out about limits."""
        self._allowed, self._held_back = earlier._allowed, earlier._held_back

    def _open_lanes(self) -> Iterator[tuple[Lane, int]]:
        for lanes in self._lanes.values():
            yield from ((lane, eta_us) for lane, eta_us in lanes.items() if lane not in self._held_back)

    def _is_limited(self, queue_name: str) -> bool:
        return self.settings(queue_name).is_limited or self._has_keys(queue_name)

    def _counts(self, queue_name: str) -> bool:
        return self.settings(queue_name).max_concurrent_requests is not None

    def _has_keys(self, queue_name: str) -> bool:
        return any(lane.keyed and eta_us <= self._now_us for lane, eta_us in self._lanes[queue_name].items())

    def _shared(self, connection: Connection, group: Collection[Lane], count: int) -> list[Row]:
        """Read from the one or two lanes of one priority, the plain and the keyed: each half, if both have as much.

        They are first in turn. By their ETAs, one whose oldest task is held back would always be.
        """
        lanes = sorted(group)
        if len(lanes) == 1:
            return self._of_lane(connection, lanes[0], count)
        pair = lanes[0].queue_name, lanes[0].priority
        self._shared_groups.add(pair)
        if self._desk.keyed_first.get(pair, False):
            lanes.reverse()
        first = self._of_lane(connection, lanes[0], -(-count // 2))
        second = self._of_lane(connection, lanes[1], count - len(first)) if count > len(first) else []
        if len(first) + len(second) < count:
            first = self._of_lane(connection, lanes[0], count - len(second))
        return first + second

    def _of_lane(self, connection: Connection, lane: Lane, count: int) -> list[Row]:
        text = self._texts[lane]
        floor_us = self._desk.outlook.floor_us(text)
        if not lane.keyed:
            given = {"lane": text, "floor": floor_us, "now": self._now_us, "most": count}
            return read(connection, _DUE, given)
        wanted = keyed.Wanted(
            lane=text, now_us=self._now_us, floor_us=floor_us, slots=count,
            limit=self.settings(lane.queue_name).limit_per_key,
            running=self._running.get(lane.queue_name, NOTHING_RUNS).by_key,
            last=self._desk.turns.get(text, keyed.FIRST_TURN),
        )  # fmt: skip
        rows, choice, self._turns[text] = keyed.take(connection, wanted)
        if choice.held_back and len(choice.chosen) < count:
            self._held_back.add(lane)
        else:
            self._held_back.discard(lane)
        return rows


def look(connection: Connection, exclude: frozenset[str], now_us: int, desk: Desk) -> Board:
    """Look at all queues but the excluded ones."""
    seen = desk.outlook.look(connection, now_us, counted=desk.counted)
    desk.learn(seen.states)
    desk.note_lanes(seen, now_us)
    return Board(desk, seen, exclude, now_us)
