"""SIGTERM in every phase: a server is held still in one, told to stop there, let go, and started again.

Whatever it was at, it ends in time, no task is left leased, an attempt that was cut short does not count, and after
the next start every task that was committed has had its effect, once.
"""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from tests.matrix.apps import HELD
from tests.matrix.cell import Verdict
from tests.matrix.run import Run
from tests.matrix.servers import ServerKind

_SECONDS_TO_TAKE_NOTICE = 0.5
_SHORT_DRAIN: dict[str, Any] = {"drain_seconds": 0.3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What a server is at when it is told to stop.

    Attributes:
        place: where it holds still, a failpoint or a place of the app's own; "": nowhere, it is idle.
        url: the handler of the task.
        end: what becomes of the order's transaction.
        then: what must have become of the task when the server has ended; "": either.
        is_deaf: the server cannot tell the app to stop as long as it holds still: the loop does, or an open request.
        outlasts: it is let go only when the task has been given back.
        again: it gets a second SIGTERM.
        options: Hookware's.
    """

    place: str
    url: str = "/worker"
    end: str = "commit"
    then: str = ""
    is_deaf: bool = False
    outlasts: bool = False
    again: bool = False
    options: dict[str, Any] = field(default_factory=dict)


DONE, GIVEN_BACK = "done", "given back"

PHASES: dict[str, Phase] = {
    "idle": Phase(place=""),
    "a request, before its commit": Phase(place="order", is_deaf=True),
    "in the claim's transaction": Phase(place="claim.updated", end="later"),
    "claimed, not begun": Phase(place="dispatch.claim.claimed", end="later", is_deaf=True),
    "handed over, not begun": Phase(place="dispatch.handed", is_deaf=True),
    "a handler that ends in time": Phase(place="handler", then=DONE),
    "a handler that takes too long, `async def`": Phase(
        place="long", url="/long", then=GIVEN_BACK, options=_SHORT_DRAIN
    ),
    "a handler that takes too long, `def`": Phase(
        place="handler", then=GIVEN_BACK, outlasts=True, options=_SHORT_DRAIN
    ),
    "before the commit of effect and end": Phase(place="commit.before", is_deaf=True, then=DONE),
    "in the settlement's transaction": Phase(place="settle.updated", url="/settled", then=DONE),
    "draining, and a second SIGTERM": Phase(place="handler", then=DONE, again=True),
}


def judge_stop(phase: Phase, server: ServerKind, folder: Path) -> Verdict:
    """Tell a server in an empty folder to stop in a phase, and start it again."""
    running = _run(phase, server, folder, is_second=False)
    output = ""
    try:
        problems = list(_stop(phase, running))
        output = running.output
        is_killed = bool(problems) and server.may_kill
        is_committed = _run_what_is_left(phase, server, folder, is_killed=is_killed)
        ran = "the task ran after the next start" if is_committed else "the order was not committed, nor its task"
        text = f"killed undrained; {ran}" if is_killed else ", ".join(problems) or "ok"
        is_good = is_killed or not problems
    except AssertionError as error:
        is_good, text = False, str(error).partition("\n")[0]
    finally:
        running.close()
    return Verdict(is_good=is_good, text=text, output=output or running.output)


def _run(phase: Phase, server: ServerKind, folder: Path, *, is_second: bool) -> Run:
    return Run(
        HELD,
        server,
        folder,
        MATRIX_HOLD="" if is_second else phase.place,
        MATRIX_ARMED=str(folder / "armed"),
        MATRIX_GATE=str(folder / "gate"),
        MATRIX_OPTIONS=json.dumps({} if is_second else phase.options),
        MATRIX_IS_SECOND_RUN="1" if is_second else "",
    )


def _stop(phase: Phase, running: Run) -> Iterator[str]:
    """Bring a server into the phase and stop it there; say what should not have happened."""
    running.wait_ready()
    running.order("warm", "/worker")
    running.wait(lambda: running.effects() == {"warm": 1} and not running.tasks(), "it runs tasks")
    with ThreadPoolExecutor(1) as clients:
        answer = None if phase.place == "" else clients.submit(_order_and_hold, phase, running)
        if answer is not None:
            running.wait(lambda: running.times_said("holds"), "it holds")
        running.ask_to_stop()
        try:
            _keep_it_there(phase, running)
        except AssertionError as error:
            yield str(error)
        (running.folder / "gate").touch()
        running.wait_stopped()
    yield from _problems(phase, running, answer)


def _order_and_hold(phase: Phase, running: Run) -> int:
    (running.folder / "armed").touch()
    return running.post_order("held", phase.url, phase.end)


def _keep_it_there(phase: Phase, running: Run) -> None:
    if phase.is_deaf:
        Event().wait(_SECONDS_TO_TAKE_NOTICE)
    else:
        running.wait(lambda: running.times_said("told to stop") == running.server.processes, "the app is told to stop")
    if phase.again:
        running.ask_to_stop()
        Event().wait(_SECONDS_TO_TAKE_NOTICE)
    if phase.outlasts:
        running.wait(lambda: [task[0] for task in running.tasks()] == [0], "the task is given back")


def _problems(phase: Phase, running: Run, answer: "Future[int] | None") -> Iterator[str]:
    if not running.ended_as_usual:
        yield f"exit status {running.status}"
    if answer is not None and answer.result() // 100 != 2:
        yield f"the order got {answer.result() or 'no answer'}"
    elif answer is not None and "held" not in running.orders():
        yield "an order that was answered 2xx is not there"
    tasks, effects = running.tasks(), running.effects()
    if any(task != (0, None, None, 0, 0) for task in tasks):
        yield f"left as (state, owner, lease, attempts, crashes) {tasks}"
    then = DONE if effects == {"warm": 1, "held": 1} and not tasks else GIVEN_BACK
    if phase.then not in ("", then):
        yield f"the task is {then}"
    if "Traceback" in running.output:
        yield "traceback"


def _run_what_is_left(phase: Phase, server: ServerKind, folder: Path, *, is_killed: bool) -> bool:
    """Start the server again: each order has its effect, once, and nothing is left; whether the held one is there."""
    with closing(_run(phase, server, folder, is_second=True)) as running:
        running.wait_ready()
        running.wait(lambda: set(running.effects()) == running.orders() and not running.tasks(), "every order is done")
        running.ask_to_stop()
        running.wait_stopped()
        assert running.ended_as_usual, f"exit status {running.status} at the second run"
        # A handler's own session is at least once, where the process is killed.
        once = is_killed or set(running.effects().values()) == {1}
        assert once, f"effects {running.effects()} after the second run"
        return "held" in running.orders() or phase.place == ""
