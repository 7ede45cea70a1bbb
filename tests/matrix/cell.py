"""One cell of the matrix: a server runs an app, takes orders, and is told to stop while a task runs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.matrix.apps import ASYNC_ENGINE, MISCONFIGURED, NEEDS_ASYNCIO, WITHOUT_LIFESPAN
from tests.matrix.run import MOST_SECONDS_TO_START, Run
from tests.matrix.servers import ServerKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one cell went: `text` is for the table, `output` what the server wrote."""

    is_good: bool
    text: str
    output: str


def judge(app: str, server: ServerKind, folder: Path) -> Verdict:
    """Run one cell of the matrix in an empty folder."""
    running = Run(app, server, folder)
    try:
        if app == MISCONFIGURED or (server.is_trio and app in ASYNC_ENGINE):
            is_good, text = True, _refusal(running)
        elif server.is_trio and app in NEEDS_ASYNCIO:
            is_good, text = True, _failure(running)
        else:
            problems = _life(running)
            is_good, text = not problems, ", ".join(problems) or "ok"
            if problems and server.may_kill:
                is_good, text = True, f"killed undrained; {_recovery(running)}"
    except AssertionError as error:
        is_good, text = False, str(error).partition("\n")[0]
    finally:
        running.close()
    return Verdict(is_good=is_good, text=text, output=running.output)


def _refusal(running: Run) -> str:
    """See a server refuse to start: it says why, and ends, or else its processes do."""
    running.wait(lambda: "hookware cannot start: " in running.output, "it says why", seconds=MOST_SECONDS_TO_START)
    try:
        running.wait(lambda: running.status is not None, "it has ended", seconds=10)
    except AssertionError:
        assert running.is_silent(), "it serves"
        running.ask_to_stop()
        running.wait_stopped()
        return "refused; the server goes on"
    return f"refused; status {running.status}"


def _failure(running: Run) -> str:
    """See a framework fail where it cannot run: the order is refused, and nothing of it is stored."""
    running.wait(lambda: not running.is_silent(), "it answers", seconds=MOST_SECONDS_TO_START)
    status = running.post_order("first", "/worker")
    assert status >= 500, f"an order got {status}"
    running.ask_to_stop()
    running.wait_stopped()
    assert not running.orders(), "the order is stored"
    assert not running.tasks(), "its task is stored"
    return f"the framework answers {status}"


def _life(running: Run) -> list[str]:
    """Start, order, and stop while the last order's task runs; say what should not have happened."""
    running.wait_ready()
    running.order("undone", "/worker", "rollback")
    running.order("first", "/worker")
    running.wait(lambda: running.effects() == {"first": 1}, "only the first order has its effect")
    running.order("second", "/slow")
    running.wait(lambda: running.times_said("slow begins"), "the second order's task runs")
    running.ask_to_stop()
    running.wait_stopped()
    return [*_problems_of_the_end(running), *_problems_of_lifespans(running)]


def _problems_of_the_end(running: Run) -> Iterator[str]:
    if not running.ended_as_usual:
        yield f"exit status {running.status}"
    if running.orders() != {"first", "second"}:
        yield f"orders {running.orders()}"
    if running.effects() != {"first": 1, "second": 1}:
        yield f"effects {running.effects()}"
    if tasks := running.tasks():
        yield f"{len(tasks)} tasks left"
    if "Traceback" in running.output:
        yield "traceback"


def _problems_of_lifespans(running: Run) -> Iterator[str]:
    if running.app in WITHOUT_LIFESPAN:
        return
    lines = [line.rpartition(" ") for line in running.journal]
    said = Counter(what for what, _, _pid in lines)
    if not said["stopped"] == said["started"] == running.server.processes:
        yield f"{said['stopped']} of {said['started']} lifespans shut down"
    order_of = {(what, pid): number for number, (what, _, pid) in enumerate(lines)}
    for what, pid in order_of:
        if what == "slow ends" and order_of[what, pid] > order_of.get(("stopped", pid), len(lines)):
            yield "the task outlived the app's resources"


def _recovery(killed: Run) -> str:
    """Start again after a kill: the task that was running has its effect, once."""
    with closing(Run(killed.app, killed.server, killed.folder)) as running:
        # Well before the lease's 30 s: a process on the same machine sees that the owner is dead.
        running.wait(lambda: running.effects() == {"first": 1, "second": 1}, "the second order has its effect")
        running.ask_to_stop()
        running.wait_stopped()
    return "the task ran after the next start"
