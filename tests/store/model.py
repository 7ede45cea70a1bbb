"""What a store should hold, as plainly as it can be said: one dict per task, one for names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry, State
from hookware.core.task import Lease, NewTask, Progress
from hookware.store.base import AddResult, TaskInfo
from tests.store.subject import SECOND_US, TOMBSTONE_US

KEPT_US = {"kept-a-minute": 60 * SECOND_US}
DEAD_US = {"dead-a-minute": 60 * SECOND_US, "dead-at-once": 0}
FIELDS = (
    "eta_us",
    "state",
    "owner",
    "attempt_count",
    "crash_count",
    "last_status",
    "last_error",
    "dead_reason",
    "progress",
)


class Model:
    """The tasks and names, changed by the rules of the protocol's docstrings."""

    def __init__(self) -> None:
        self.now_us = 0
        self.tasks: dict[int, dict[str, Any]] = {}
        self.names: dict[tuple[str, str], tuple[int, int | None]] = {}

    def seen(self) -> dict[int, tuple[Any, ...]]:
        """Give what an inspector would see of each task."""
        return {task_id: tuple(task[field] for field in FIELDS) for task_id, task in self.tasks.items()}

    def of_state(self, state: State) -> dict[int, dict[str, Any]]:
        return {task_id: task for task_id, task in self.tasks.items() if task["state"] is state}

    def insert(self, task: NewTask) -> None:
        self.tasks[task.id] = {
            "queue": task.queue_name, "name": task.name, "fence": 0,
            "keys": task.keys, "added": (self.now_us, task.id), "until_us": None, "first_us": None, "ended_us": None,
            **dict.fromkeys(FIELDS), "state": State.PENDING, "attempt_count": 0, "crash_count": 0,
            "eta_us": self.now_us if task.eta_us is None else task.eta_us,
        }  # fmt: skip

    def add(self, task: NewTask) -> AddResult:
        if task.keys.on_conflict == "raise" and self.waiting(task.queue_name, task.keys.dedup_key):
            return AddResult.KEY_WAITS
        if task.name is not None:
            key = (task.queue_name, task.name)
            alive = (t for t in self.tasks.values() if t["state"] not in (State.DEAD, State.COMPLETED))
            if any((t["queue"], t["name"]) == key for t in alive):
                return AddResult.NAME_TAKEN
            if self.is_held(key):
                return AddResult.NAME_TAKEN if self.names[key][1] is None else AddResult.NAME_TOMBSTONED
            self.names[key] = (task.id, None)
        self.insert(task)
        return AddResult.ADDED

    def is_held(self, key: tuple[str, str]) -> bool:
        expires_us = self.names[key][1] if key in self.names else self.now_us
        return expires_us is None or expires_us > self.now_us

    def due(self, exclude: Iterable[str]) -> dict[str, list[int]]:
        """Give the due tasks of each queue in the order in which they are claimed."""
        queues: dict[str, list[int]] = {}
        for task_id, task in sorted(self.tasks.items(), key=lambda item: (item[1]["eta_us"], item[0])):
            if task["state"] is State.PENDING and task["eta_us"] <= self.now_us and task["queue"] not in exclude:
                queues.setdefault(task["queue"], []).append(task_id)
        return queues

    def waiting(self, queue: str, key: str | None) -> list[int]:
        """Give the waiting tasks with a dedup key, as they were added."""
        same = [
            (task["added"], task_id) for task_id, task in self.of_state(State.PENDING).items()
            if key is not None and (task["queue"], task["keys"].dedup_key) == (queue, key)
        ]  # fmt: skip
        return [task_id for _added, task_id in sorted(same)]

    def rivals(self, task_id: int) -> list[int]:
        """Give the task and those that wait with the same dedup key."""
        task = self.tasks[task_id]
        return self.waiting(task["queue"], task["keys"].dedup_key) or [task_id]

    def sort_out(self, chosen: Sequence[int]) -> list[int]:
        """Give those of the chosen tasks that run, once names are won and of each key one task is left."""
        sides = list(dict.fromkeys(tuple(self.rivals(task_id)) for task_id in chosen))
        while True:
            fit = [[i for i in side if self.tasks[i]["state"] is State.PENDING] for side in sides]
            runners = [self.last_replacing(side) for side in fit if side]
            if not [task_id for task_id in runners if not self.wins_its_name(task_id)]:
                break
        for task_id in {i for side in fit for i in side} - set(runners):
            self.drop(task_id)
        return [i for i in chosen if i in runners and self.tasks[i]["state"] is State.PENDING]

    def last_replacing(self, side: Sequence[int]) -> int:
        return [side[0], *(i for i in side[1:] if self.tasks[i]["keys"].on_conflict == "replace")][-1]

    def wins_its_name(self, task_id: int) -> bool:
        task = self.tasks[task_id]
        key = (task["queue"], task["name"])
        if task["name"] is None:
            return True
        if self.is_held(key) and self.names[key][0] != task_id:
            error = f"the name is held by task {self.names[key][0]}"
            task.update(state=State.DEAD, dead_reason="duplicate", ended_us=self.now_us, last_error=error)
            return False
        if not self.is_held(key):
            self.names[key] = (task_id, None)
        return True

    def claim(self, task_id: int, owner: str, lease_us: int) -> Lease:
        """Claim one task that runs."""
        task = self.tasks[task_id]
        task["fence"] += 1
        task["attempt_count"] += 1
        task["first_us"] = task["first_us"] or self.now_us
        task.update(state=State.LEASED, owner=owner, until_us=self.now_us + lease_us)
        return Lease(task_id, task["fence"])

    def holds(self, lease: Lease) -> bool:
        task = self.tasks.get(lease.task_id)
        return task is not None and task["state"] is State.LEASED and task["fence"] == lease.fence

    def settle(self, lease: Lease, decision: Decision) -> bool:
        if not self.holds(lease):
            return False
        task = self.tasks[lease.task_id]
        if isinstance(decision, Complete) and task["queue"] in KEPT_US:
            self.tombstone(lease.task_id)
            task.update(state=State.COMPLETED, owner=None, until_us=None, ended_us=self.now_us)
            return True
        if isinstance(decision, Complete):
            self.remove(lease.task_id)
            return True
        if isinstance(decision, Die) and DEAD_US.get(task["queue"]) == 0:
            self.drop(lease.task_id)
            return True
        task.update(state=State.PENDING, owner=None, until_us=None)
        if isinstance(decision, Release):
            task["attempt_count"] -= 1
            task["first_us"] = task["first_us"] if task["attempt_count"] else None
            task["eta_us"] = self.now_us + decision.delay_us if decision.delay_us else task["eta_us"]
            return True
        task["crash_count"] += decision.crashed
        task["last_error"] = decision.error
        task["last_status"] = task["last_status"] if decision.status is None else decision.status
        if isinstance(decision, Retry):
            task["eta_us"] = self.now_us + decision.delay_us
        elif isinstance(decision, Die):
            task.update(state=State.DEAD, dead_reason=decision.reason, ended_us=self.now_us)
        return True

    def renew(self, leases: Sequence[Lease], lease_us: int) -> set[int]:
        kept = {lease.task_id for lease in leases if self.holds(lease)}
        for task_id in kept:
            self.tasks[task_id]["until_us"] = self.now_us + lease_us
        return kept

    def expired(self, owners: Iterable[str]) -> list[int]:
        ended = [
            (task["until_us"], task_id)
            for task_id, task in self.of_state(State.LEASED).items()
            if task["until_us"] <= self.now_us or task["owner"] in owners
        ]
        return [task_id for _until_us, task_id in sorted(ended)]

    def next_due(self) -> int | None:
        etas = [task["eta_us"] for task in self.of_state(State.PENDING).values()]
        return max(0, min(etas) - self.now_us) if etas else None

    def remove(self, task_id: int) -> None:
        if self.tasks[task_id]["state"] is not State.COMPLETED:
            self.tombstone(task_id)
        del self.tasks[task_id]

    def tombstone(self, task_id: int) -> None:
        task = self.tasks[task_id]
        key = (task["queue"], task["name"])
        if task["name"] is not None and (not self.is_held(key) or self.names[key][0] == task_id):
            self.names[key] = (task_id, self.now_us + TOMBSTONE_US)

    def drop(self, task_id: int) -> None:
        """Remove a task; only a name that it has won and still holds is tombstoned."""
        task = self.tasks.pop(task_id)
        key = (task["queue"], task["name"])
        if self.names.get(key) == (task_id, None):
            self.names[key] = (task_id, self.now_us + TOMBSTONE_US)

    def cancel(self, task_id: int) -> bool:
        task = self.tasks.get(task_id)
        if task is None or task["state"] in (State.DEAD, State.COMPLETED):
            return False
        if task["state"] is State.PENDING:
            self.remove(task_id)
        elif DEAD_US.get(task["queue"]) == 0:
            self.drop(task_id)
        else:
            task.update(
                state=State.DEAD, dead_reason="cancelled", owner=None, until_us=None, ended_us=self.now_us,
                fence=task["fence"] + 1,
            )  # fmt: skip
        return True

    def note_progress(self, notes: Mapping[Lease, Progress]) -> set[int]:
        same = {lease: said for lease, said in notes.items() if self.fence(lease.task_id) == lease.fence}
        for lease, said in same.items():
            self.tasks[lease.task_id]["progress"] = said
        return {lease.task_id for lease in same}

    def fence(self, task_id: int) -> int | None:
        return self.tasks[task_id]["fence"] if task_id in self.tasks else None

    def run_again_all(self, queue: str, reason: str | None, limit: int) -> int:
        not_wanted = ("cancelled", "duplicate") if reason is None else ()
        dead = sorted((task["ended_us"], i) for i, task in self.of_state(State.DEAD).items() if task["queue"] == queue)
        reasons = {i: self.tasks[i]["dead_reason"] for _, i in dead}
        wanted = [i for i, why in reasons.items() if why not in not_wanted and reason in (None, why)]
        return len([self.run_again(i) for i in wanted[:limit]])

    def delete(self, task_id: int) -> bool:
        if task_id not in self.tasks or self.tasks[task_id]["state"] is State.LEASED:
            return False
        self.remove(task_id)
        return True

    def run_again(self, task_id: int) -> bool:
        if task_id not in self.of_state(State.DEAD):
            return False
        self.tasks[task_id].update(
            dict.fromkeys(FIELDS), state=State.PENDING, eta_us=self.now_us, attempt_count=0, crash_count=0,
            first_us=None, ended_us=None,
        )  # fmt: skip
        return True

    def prune(self) -> int:
        names = [key for key in self.names if not self.is_held(key)]
        dead = self.of_state(State.DEAD).items()
        old = [i for i, t in dead if t["dead_reason"] == "duplicate" and t["ended_us"] + TOMBSTONE_US <= self.now_us]
        for key in names:
            del self.names[key]
        for task_id in old:
            del self.tasks[task_id]
        kept = [self.tasks[i] | {"id": i} for i in self.tasks]
        gone = [
            task["id"] for task in kept
            if self.is_over(task, State.COMPLETED, KEPT_US.get(task["queue"], 0))
            or self.is_over(task, State.DEAD, DEAD_US.get(task["queue"]))
        ]  # fmt: skip
        for task_id in gone:
            self.drop(task_id)
        return len(names) + len(old) + len(gone)

    def is_over(self, task: dict[str, Any], state: State, kept_us: int | None) -> bool:
        return task["state"] is state and kept_us is not None and bool(task["ended_us"] + kept_us <= self.now_us)


def seen(info: TaskInfo) -> tuple[Any, ...]:
    """Give of a stored task what `Model.seen` gives."""
    return tuple(getattr(info, field) for field in FIELDS)
