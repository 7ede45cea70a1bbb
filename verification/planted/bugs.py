"""What a planted bug is, and what may catch it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A text in a file of the package, and what stands there instead; it must be there exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A check: one of `invariants` breaks in one of the first `seeds` seeds of the simulation."""

    invariants: tuple[str, ...]
    store: str = "memory"
    seeds: int = 30

    def __str__(self) -> str:
        return f"simulation on {self.store}: {' or '.join(self.invariants)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSimulated:
    """A check: one of `invariants` breaks in one of the first `seeds` seeds of the simulation of cron."""

    invariants: tuple[str, ...]
    seeds: int = 4

    def __str__(self) -> str:
        return f"simulation of cron: {' or '.join(self.invariants)}"


@dataclass(frozen=True, slots=True)
class Tested:
    """A check: a test fails. It is named by its file and name, and by what its name holds where it has parameters."""

    test: str
    only: str = ""

    def __str__(self) -> str:
        return f"`{self.test}`" + (f" ({self.only})" if self.only else "")


Check = Simulated | CronSimulated | Tested


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """Something that a tired programmer might write."""

    name: str
    edits: tuple[Edit, ...]
    caught_by: Check


def bug(name: str, caught_by: Check, *edits: tuple[str, str, str]) -> Bug:
    """Make a bug of (file below hookware/, old text, new text)."""
    return Bug(name=name, caught_by=caught_by, edits=tuple(Edit(file=f, old=old, new=new) for f, old, new in edits))


def breaks(*invariants: str, store: str = "memory", seeds: int = 30) -> Simulated:
    """Say that the simulation finds it."""
    return Simulated(invariants=invariants, store=store, seeds=seeds)
