"""The ledger: every campaign leaves a line of what it did and found, and a page of the documentation shows them all.

`python -m verification ledger` writes the page's table again from docs/verification/ledger.jsonl.
"""

import argparse
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEDGER = ROOT / "docs" / "verification" / "ledger.jsonl"
PAGE = ROOT / "docs" / "explanation" / "verification.md"
_BEGIN, _END = "<!-- ledger: begin -->\n", "<!-- ledger: end -->\n"
_PROGRAM = ("hookware", "verification")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One campaign.

    Attributes:
        commit: what was run; a "+" after it: with changes that were not committed.
        date: when it ended, in UTC.
        what: the command.
        where: the store or database, with its version where it matters.
        first_seed: the first of the seeds, of which there are `seed_count` in a row.
        seed_count: how many seeds; of a campaign of real processes one.
        node_count: processes side by side.
        hours: how long, in all seeds together, by the clock that `virtual` tells.
        virtual: the hours are simulated.
        tasks: tasks committed.
        runs: handler calls begun.
        kills: processes killed, by what killed them.
        faults: everything else that was done to them.
        violations: broken invariants, how often each.
        duplicates: duplicates, as the checker counts them, by the fault that made them.
        machine: what it ran on.
        seconds: how long it took.
    """

    commit: str
    date: str
    what: str
    where: str
    first_seed: int
    seed_count: int
    node_count: int
    hours: float
    virtual: bool
    tasks: int
    runs: int
    kills: Mapping[str, int]
    faults: Mapping[str, int] = field(default_factory=dict)
    violations: Mapping[str, int] = field(default_factory=dict)
    duplicates: Mapping[str, int] = field(default_factory=dict)
    machine: Mapping[str, int | str] = field(default_factory=dict)
    seconds: float = 0.0


def current_commit() -> str:
    """Name the commit that runs, with a "+" if the program has been changed since."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--", *_PROGRAM) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def now() -> str:
    """Give the date and time as the ledger has it."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M")


def machine() -> dict[str, int | str]:
    """Say what this runs on."""
    return {"cores": os.cpu_count() or 0, "python": platform.python_version(), "system": platform.system()}


def record(entry: Entry, path: Path = LEDGER) -> None:
    """Append a line to the ledger, and bring the page up to date."""
    if path == Path(os.devnull):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({each.name: getattr(entry, each.name) for each in fields(entry)}) + "\n")
    if path == LEDGER:
        PAGE.write_text(page_with(read(path), PAGE.read_text()))


def read(path: Path = LEDGER) -> list[Entry]:
    """Give the entries, oldest first."""
    return [Entry(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def page_with(entries: Iterable[Entry], page: str) -> str:
    """Give the page with the table of these entries between its marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + "".join(f"{line}\n" for line in _tables(list(entries))) + _END + after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Ask for nothing."""


def run_command(_asked: argparse.Namespace) -> int:
    """Write the table of the page again."""
    PAGE.write_text(page_with(read(), PAGE.read_text()))
    return 0


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _tables(entries: list[Entry]) -> Iterator[str]:
    yield "| campaign | on | hours | seeds | tasks | runs | kills | violations | duplicates |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for (what, where), those in sorted(_by_campaign(entries).items()):
        yield _row(
            what, where, _hours(those), sum(each.seed_count for each in those), sum(each.tasks for each in those),
            sum(each.runs for each in those), sum(_sum(each.kills for each in those).values()),
            _counts(_sum(each.violations for each in those)), _counts(_sum(each.duplicates for each in those)),
        )  # fmt: skip
    yield ""
    yield "The runs one by one, newest first:"
    yield ""
    yield "| date | commit | campaign | on | nodes | seeds | hours | tasks | kills | other faults | violations | took |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for each in reversed(entries):
        yield _row(
            each.date, each.commit, each.what, each.where, each.node_count, _seeds(each), _hours([each]), each.tasks,
            _counts(each.kills), _counts(each.faults), _counts(each.violations), _took(each),
        )  # fmt: skip


def _by_campaign(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.what, entry.where), []).append(entry)
    return groups


def _row(*cells: object) -> str:
    return "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells) + " |"


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count) or "0"


def _seeds(entry: Entry) -> str:
    return f"{entry.first_seed} to {entry.first_seed + entry.seed_count - 1}" if entry.seed_count > 1 else "1"


def _hours(entries: Iterable[Entry]) -> str:
    those = list(entries)
    hours, kinds = sum(each.hours for each in those), {each.virtual for each in those}
    return f"{hours:,.1f}" + (" virtual" if kinds == {True} else "")


def _took(entry: Entry) -> str:
    return f"{entry.seconds:,.0f} s, {entry.machine.get('cores')} cores, Python {entry.machine.get('python')}"
