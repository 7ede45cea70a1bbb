"""What can go wrong in a simulated world, and how often: each seed draws its own mixture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates per call of the store, statement or failpoint, and mean seconds between blows to the nodes.

    Attributes:
        error_before: calls of the store that fail before they have done anything.
        error_after: calls that fail although what they did is done: the ambiguous commit.
        delay_seconds: the mean time that a call takes.
        hang: calls that hang, for a second to a minute and more.
        busy_seconds: how long a statement waits for a lock of SQLite before it fails.
        slow_line_seconds: how much slower the line of one host is.
        renew_error: renewals that fail, before or after their effect.
        failpoint_kill: failpoints at which the process dies.
        failpoint_error: failpoints at which an exception is raised.
        lost_wakeup: commits of which no dispatcher is told.
        kill_every: SIGKILL to a process; its host starts another a little later.
        pause_every: SIGSTOP to a process, and SIGCONT.
        restart_every: SIGTERM to a process, and the next one starts while it drains.
        sleep_every: all processes stand still at once, as in a virtual machine that is moved.
        skew_seconds: how far the clocks of the nodes are off.
        node_clock_every: the clock of a node is set.
        database_clock_every: the clock of the database is set: forward by up to an hour, back by up to a minute.
        kinds: which handlers are called, and how often in relation to each other; those not named, as usual.
        calm: nothing goes wrong, so that a shutdown must be in order.
    """

    error_before: float = 0.0
    error_after: float = 0.0
    delay_seconds: float = 0.003
    hang: float = 0.0
    busy_seconds: float = 5.0
    slow_line_seconds: float = 0.0
    renew_error: float = 0.0
    failpoint_kill: float = 0.0
    failpoint_error: float = 0.0
    lost_wakeup: float = 0.0
    kill_every: float = NEVER
    pause_every: float = NEVER
    restart_every: float = NEVER
    sleep_every: float = NEVER
    skew_seconds: float = 0.0
    node_clock_every: float = NEVER
    database_clock_every: float = NEVER
    kinds: Mapping[str, float] = field(default_factory=dict)
    calm: bool = False


NO_FAULTS = Faults(calm=True)
SLOW = Faults(calm=True, delay_seconds=0.1)
"""Nothing goes wrong, but calls are long on their way."""


def draw(random: Random, kinds: tuple[str, ...]) -> Faults:
    """Draw a mixture: each kind is on in some seeds and off in others, so that they do not hide each other."""

    def sometimes(value: float) -> float:
        return value * random.random() if random.random() < 0.6 else 0.0

    def every(*means: float) -> float:
        return random.choice((NEVER, *means))

    return Faults(
        error_before=sometimes(0.05),
        error_after=sometimes(0.05),
        delay_seconds=random.choice((0.001, 0.003, 0.03, 0.5)),
        hang=sometimes(0.02),
        busy_seconds=random.choice((0.0, 5.0)),
        slow_line_seconds=random.choice((0.0, 0.0, 1.0, 3.0)),
        renew_error=sometimes(0.3),
        failpoint_kill=sometimes(0.004),
        failpoint_error=sometimes(0.006),
        lost_wakeup=random.choice((0.0, 0.5, 1.0)),
        kill_every=every(60.0, 200.0),
        pause_every=every(60.0, 200.0),
        restart_every=every(100.0, 300.0),
        sleep_every=every(NEVER, 400.0),
        skew_seconds=random.choice((0.0, 60.0, 3600.0)),
        node_clock_every=every(120.0),
        database_clock_every=every(NEVER, NEVER, 600.0),
        kinds={kind: 0.0 for kind in kinds if random.random() < 0.25},
    )
