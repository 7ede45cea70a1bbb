"""What the checker is told, and what it says."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What was configured, in seconds, where the invariants depend on it.

    Attributes:
        lease: how long a lease is.
        poll: the longest wait between two looks at the store.
        shutdown: how long a calm shutdown may take.
        begin: how long a claimed task may take to begin.
        claim: without faults, how long a due task may wait for its claim.
        tail: without faults, how long everything may take to end.
        tombstone: how long a finished task's name stays taken.
        crash_limit: how many crashes make a task dead.
        duplicates_have_causes: a call that ended well and was repeated although no fault befell it is a violation.
        finished: the history goes on to the end, so that what is missing is lost.
        slack: what recovery may take besides lease and poll.
    """

    lease: float = 30.0
    poll: float = 1.0
    shutdown: float = 15.0
    begin: float = 5.0
    claim: float = 60.0
    tail: float = 600.0
    tombstone: float = 9 * 86_400.0
    crash_limit: int = 3
    duplicates_have_causes: bool = False
    finished: bool = True
    slack: float = 6.0


@dataclass(frozen=True, slots=True)
class Complaint:
    """An invariant that was broken: which, by which task (0: none in particular), and how."""

    invariant: str
    task: int
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.text}" + (f" (task {self.task})" if self.task else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a history says.

    Attributes:
        complaints: the invariants it breaks; empty: a clean run.
        committed: tasks whose transaction is known to have committed.
        unknown: tasks added on their own of which nobody knows whether they were stored, and which never ran.
        runs: handler calls begun.
        effects: rows written by handlers in hookware's transaction.
        dead: tasks given up.
        refused: results that the fence refused.
        duplicates: calls that ended well more often than once, of tasks whose effect is not in hookware's transaction,
            by the fault that made them; "none" without one.
        kills: nodes killed, by what killed them.
    """

    complaints: tuple[Complaint, ...]
    committed: int
    unknown: int
    runs: int
    effects: int
    dead: int
    refused: int
    duplicates: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)

    @property
    def violations(self) -> Counter[str]:
        """How often each invariant was broken."""
        return Counter(complaint.invariant for complaint in self.complaints)

    def verify(self) -> None:
        """Raise AssertionError on everything that hookware promises never to do."""
        assert self.committed, "nothing was committed: the run proves nothing"
        assert not self.complaints, "\n".join(map(str, self.complaints))
