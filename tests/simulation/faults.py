"""What can go wrong in a simulated world, and how often: each seed draws its own mixture."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates per store call or per failpoint, and mean seconds between blows to the nodes.

    A kill is SIGKILL, a pause SIGSTOP and SIGCONT, a restart an orderly shutdown; a sleep pauses all nodes at once.
    One host may have a slow line to the store.
    """

    error_before: float = 0.0
    error_after: float = 0.0
    delay_seconds: float = 0.003
    long_delay: float = 0.0
    slow_line_seconds: float = 0.0
    renew_error: float = 0.0
    failpoint_kill: float = 0.0
    failpoint_error: float = 0.0
    kill_every: float = float("inf")
    pause_every: float = float("inf")
    restart_every: float = float("inf")
    sleep_every: float = float("inf")
    skew_seconds: float = 0.0


NO_FAULTS = Faults()


def draw(random: Random) -> Faults:
    """Draw a mixture: each kind is on in some seeds and off in others, so that they do not hide each other."""

    def sometimes(value: float, otherwise: float = 0.0) -> float:
        return value * random.random() if random.random() < 0.6 else otherwise

    never = float("inf")
    return Faults(
        error_before=sometimes(0.05),
        error_after=sometimes(0.05),
        delay_seconds=random.choice([0.001, 0.003, 0.03, 0.5]),
        long_delay=sometimes(0.03),
        slow_line_seconds=random.choice([0.0, 0.0, 1.0, 3.0]),
        renew_error=sometimes(0.3),
        failpoint_kill=sometimes(0.008),
        failpoint_error=sometimes(0.01),
        kill_every=random.choice([never, 60.0, 150.0]),
        pause_every=random.choice([never, 40.0, 120.0]),
        restart_every=random.choice([never, 80.0, 200.0]),
        sleep_every=random.choice([never, never, 80.0]),
        skew_seconds=random.choice([0.0, 0.0, 60.0, 3600.0]),
    )
