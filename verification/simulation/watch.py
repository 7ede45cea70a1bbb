"""What happens to the rows, seen from outside the program: two looks at a row make a line of the history.

The program's own word is not asked. A settlement of which it was never told whether it was stored is in the history
if, and only if, it was stored.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from hookware.core.lifecycle import State

if TYPE_CHECKING:
    from verification.simulation.world import World


class Seen(NamedTuple):
    """A row of the task table, as far as the invariants speak of it."""

    id: int
    state: int
    fence: int
    owner: str | None
    lease_until_us: int | None
    attempt_count: int
    crash_count: int
    eta_us: int
    dead_reason: str | None


class Watch:
    """Writes down what becomes of rows."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def changed(self, before: Seen | None, after: Seen | None, *, by_handler: bool = False) -> None:
        """Take note of one row's change by one transaction; None: there is none."""
        if before is None:
            if after is not None:
                self._world.note_committed(after.id, after.eta_us)
                if after.state == State.LEASED:
                    self._claimed(after)
        elif after is None:
            self._gone(before, by_handler)
        elif after.state == State.LEASED:
            self._leased(before, after)
        elif before != after:
            self._ended(before, after)

    def _gone(self, before: Seen, by_handler: bool) -> None:
        if before.state == State.DEAD and before.dead_reason == "duplicate":
            return  # its time is over
        self._world.note(
            "settled", task=before.id, attempt=before.attempt_count, fence=before.fence, outcome="complete",
            by_handler=by_handler,
        )  # fmt: skip

    def _leased(self, before: Seen, after: Seen) -> None:
        if before.state != State.LEASED or before.fence != after.fence:
            self._claimed(after)
        elif before._replace(lease_until_us=after.lease_until_us) != after:
            self._world.note("meddled", task=after.id, fence=after.fence)
        elif before != after:
            until = self._world.seconds(after.lease_until_us or 0)
            self._world.note("renewed", task=after.id, fence=after.fence, until=until)

    def _claimed(self, after: Seen) -> None:
        self._world.note(
            "claimed", node=after.owner or "", task=after.id, attempt=after.attempt_count, fence=after.fence,
            until=self._world.seconds(after.lease_until_us or 0), deadline=self._world.deadline(after.id),
        )  # fmt: skip

    def _ended(self, before: Seen, after: Seen) -> None:
        world, crashed = self._world, after.crash_count > before.crash_count
        if before.state == State.PENDING and after.dead_reason == "duplicate":
            world.note("dropped", task=after.id)
            return
        said: dict[str, Any] = {
            "task": after.id,
            "attempt": before.attempt_count,
            "fence": before.fence,
            "crashed": crashed,
        }
        if after.state == State.DEAD:
            world.note("settled", outcome="die", reason=after.dead_reason or "", **said)
        elif after.attempt_count < before.attempt_count:
            world.note("settled", outcome="release", due=world.seconds(after.eta_us), **said)
        else:
            world.note("settled", outcome="retry", due=world.seconds(after.eta_us), **said)
