"""Whether a handler may run more than once: Hypothesis looks for a sequence of events after which that can be seen.

Tasks are delivered at least once. An attempt may fail before the handler has done anything, or after it has done all;
its process may die at either moment; and what failed comes again after what was added later. Whatever happens, in the
end the effects have to be those of running each task once.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack

try:
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
except ImportError as error:
    raise ImportError('the test of idempotence needs Hypothesis: pip install "hookware[testing]"') from error

from hookware.testing.tasks import Tasks, rehearse

_LATER_SECONDS = 60
_MOST_ATTEMPTS = 200
_STEP_COUNT = 6


class Idempotence(RuleBasedStateMachine):
    """A Hypothesis state machine that delivers your tasks as badly as at-least-once allows.

    Subclass it, say how to begin, how to add a task and what the effects are, and let pytest find its `TestCase`.

    Attributes:
        task_count: how many tasks there are at the most.
        fault_count: how many attempts go wrong at the most; fewer than your tasks' retry limit and `crash_limit`, or
            a task that was given up would be taken for one that did too little.
        reorders: whether tasks may overtake each other. If your tasks must run in the order in which they were added,
            hookware is not for them; False tests the rest.
        tasks: the tasks, in mode "manual".
    """

    task_count = 3
    fault_count = 2
    reorders = True

    def __init__(self) -> None:
        super().__init__()
        self._open = ExitStack()
        self._story: list[str] = []
        self._added_count = self._faulty_count = 0
        self._start()

    # What you write.

    @abstractmethod
    def begin(self) -> None:
        """Remove every effect of earlier runs."""

    @abstractmethod
    def add(self, number: int) -> None:
        """Add the task with this number, 0 at first, with a request or by itself; the same number, the same task."""

    @abstractmethod
    def effects(self) -> object:
        """Give what the handler has done, as something that can be compared: rows, mails that were sent."""

    # What may happen.

    @initialize()
    def add_the_first(self) -> None:
        """Have a task."""
        self._add()

    @precondition(lambda self: self._added_count < self.task_count)
    @rule()
    def add_another(self) -> None:
        """Have one more."""
        self._add()

    @rule()
    def deliver(self) -> None:
        """Let the next task run."""
        self._deliver("delivered")

    @precondition(lambda self: self._faulty_count < self.fault_count)
    @rule()
    def fail_before(self) -> None:
        """Let the next attempt fail before its handler begins."""
        self.tasks.fail()
        self._faulty_count += 1
        self._deliver("failed before the handler")

    @precondition(lambda self: self._faulty_count < self.fault_count)
    @rule()
    def fail_after(self) -> None:
        """Let the next attempt fail after its handler has ended."""
        self.tasks.fail(after=True)
        self._faulty_count += 1
        self._deliver("failed after the handler")

    @precondition(lambda self: self._faulty_count < self.fault_count)
    @rule()
    def crash_before(self) -> None:
        """Let the process die before the handler begins."""
        self.tasks.crash(at="before")
        self._faulty_count += 1
        self._deliver("process died before the handler")

    @precondition(lambda self: self._faulty_count < self.fault_count)
    @rule()
    def crash_after(self) -> None:
        """Let the process die between the handler's effect and the task's completion."""
        self.tasks.crash(at="after")
        self._faulty_count += 1
        self._deliver("process died after the handler")

    @precondition(lambda self: self.reorders and self._faulty_count < self.fault_count)
    @rule()
    def overtake(self) -> None:
        """Let the next task fail, and wait so long that others overtake it."""
        self.tasks.fail(status=429, retry_after=_LATER_SECONDS)
        self._faulty_count += 1
        self._deliver("put off")

    @rule()
    def run_all(self) -> None:
        """Let time pass, until all that waits for it has run."""
        self._run_all()
        self._story.append("all run")

    # What has to be true at the end.

    def teardown(self) -> None:
        """Compare the effects with those of running each task once."""
        try:
            self._run_all()
            seen = self.effects()
            self._open.close()
            self._start()
            for number in range(self._added_count):
                self.add(number)
                self._run_all()
            once = self.effects()
        finally:
            self._open.close()
        story = "; ".join(self._story)
        assert seen == once, (  # noqa: S101 - it is a test
            f"the handler is not idempotent: after these events its effects are {seen!r}, and {once!r} if each of the "
            f"{self._added_count} tasks runs once: {story}"
        )

    def _start(self) -> None:
        self._open = ExitStack()
        self.tasks: Tasks = self._open.enter_context(rehearse())
        try:
            self.begin()
        except BaseException:
            self._open.close()
            raise

    def _add(self) -> None:
        self.add(self._added_count)
        self._added_count += 1
        self._story.append("added")

    def _deliver(self, what: str) -> None:
        ran = self.tasks.run_next(raise_errors=False)
        self.tasks.cancel_faults()  # of which nothing was due
        self._story.append("nothing due" if ran is None else f"{what} ({ran.task.label}: {ran.end})")

    def _run_all(self) -> None:
        for _ in range(self.task_count + 1):
            report = self.tasks.run(raise_errors=False, max_attempts=_MOST_ATTEMPTS)
            if not self.tasks:
                return
            if len(report.attempts) >= _MOST_ATTEMPTS:
                break
            self.tasks.clock.advance(_LATER_SECONDS * 2)  # for what an earlier step has put off
        left = self.tasks.list()[0]
        why = report.attempts[-1].error if report.attempts else left.last_error
        story = "; ".join(self._story)
        raise AssertionError(f"task {left.id} of {left.url} comes to no end: {why}. It came to this by: {story}")


def check_idempotence(
    *,
    begin: Callable[[], None],
    add: Callable[[int], object],
    effects: Callable[[], object],
    task_count: int = 3,
    reorders: bool = True,
    fault_count: int = 2,
    max_examples: int = 25,
) -> None:
    """Test idempotence with functions in place of a subclass; see `Idempotence` for what each does.

    Raises:
        AssertionError: a sequence of events has been found after which the effects are others than if each task had
            run once.
    """

    class Machine(Idempotence):
        def begin(self) -> None:
            begin()

        def add(self, number: int) -> None:
            add(number)

        def effects(self) -> object:
            return effects()

    Machine.task_count, Machine.fault_count, Machine.reorders = task_count, fault_count, reorders
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=_STEP_COUNT,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # the story is short as it is
            suppress_health_check=list(HealthCheck),
        ),
    )
