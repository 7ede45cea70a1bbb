"""What a store should hold, as plainly as it can be said: one dict per task, one for names."""

from collections.abc import Iterable, Sequence
from typing import Any

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry, State
from hookware.core.task import Lease, NewTask
from hookware.store.base import AddResult, TaskInfo
from tests.store.subject import TOMBSTONE_US

FIELDS = ("eta_us", "state", "owner", "attempt_count", "crash_count", "last_status", "last_error", "dead_reason")


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
            "until_us": None, "first_us": None, "ended_us": None,
            **dict.fromkeys(FIELDS), "state": State.PENDING, "attempt_count": 0, "crash_count": 0,
            "eta_us": self.now_us if task.eta_us is None else task.eta_us,
        }  # fmt: skip

    def add(self, task: NewTask) -> AddResult:
        if task.name is not None:
            key = (task.queue_name, task.name)
            alive = (t for t in self.tasks.values() if t["state"] is not State.DEAD)
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

    def claim(self, task_id: int, owner: str, lease_us: int) -> Lease | None:
        """Claim one task, or find out that it is a duplicate."""
        task = self.tasks[task_id]
        if task["name"] is not None:
            key = (task["queue"], task["name"])
            if self.is_held(key) and self.names[key][0] != task_id:
                error = f"the name is held by task {self.names[key][0]}"
                task.update(state=State.DEAD, dead_reason="duplicate", ended_us=self.now_us, last_error=error)
                return None
            self.names[key] = (task_id, None)
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
        if isinstance(decision, Complete):
            self.remove(lease.task_id)
            return True
        task.update(state=State.PENDING, owner=None, until_us=None)
        if isinstance(decision, Release):
            task["attempt_count"] -= 1
            task["first_us"] = task["first_us"] if task["attempt_count"] else None
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
        task = self.tasks.pop(task_id)
        key = (task["queue"], task["name"])
        if task["name"] is not None and (not self.is_held(key) or self.names[key][0] == task_id):
            self.names[key] = (task_id, self.now_us + TOMBSTONE_US)

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
        return len(names) + len(old)


def seen(info: TaskInfo) -> tuple[Any, ...]:
    """Give of a stored task what `Model.seen` gives."""
    return tuple(getattr(info, field) for field in FIELDS)
