"""The ledger and the page that shows it."""

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from verification.checker import __doc__ as invariants
from verification.ledger import LEDGER, PAGE, Entry, current_commit, machine, now, page_with, read, record

ENTRY = Entry(
    commit="0123456789ab", date="2026-01-02 03:04", what="crash", where="SQLite", first_seed=7, seed_count=1,
    node_count=2, hours=1.25, virtual=False, tasks=1000, runs=1200, kills={"at random": 60, "at failpoints": 1040},
    violations={"I4": 1}, duplicates={"kill": 3}, machine={"cores": 2, "python": "3.11.7"}, seconds=4500,
)  # fmt: skip
PAGE_TEXT = "before\n<!-- ledger: begin -->\nold\n<!-- ledger: end -->\nafter\n"


def rows(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (.+) \|$", page, re.MULTILINE)]


def test_the_page_shows_the_ledger_as_it_is() -> None:
    assert PAGE.read_text() == page_with(read(), PAGE.read_text()), "run `python -m verification ledger`"


def test_the_page_names_every_invariant_that_the_checker_does() -> None:
    def named(text: str) -> list[str]:
        return re.findall(r"^\|? ?(I\d+)\b", text, re.MULTILINE)

    assert named(PAGE.read_text()) == named(invariants or "") != []


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.jsonl"
    record(replace(ENTRY, duplicates=Counter({"kill": 3})), path)
    record(replace(ENTRY, commit="ba9876543210"), path)
    assert read(path) == [ENTRY, replace(ENTRY, commit="ba9876543210")]
    assert json.loads(path.read_text().splitlines()[0]) == asdict(ENTRY)
    assert path != LEDGER


def test_campaigns_of_a_kind_are_added_up_and_each_has_its_row() -> None:
    simulated = replace(ENTRY, what="simulation", where="memory", virtual=True, first_seed=0, seed_count=50)
    page = page_with([ENTRY, replace(ENTRY, violations={}), simulated], PAGE_TEXT)
    assert page.startswith("before\n<!--")
    assert page.endswith("-->\nafter\n")
    assert "old" not in page
    assert rows(page)[1] == ["crash", "SQLite", "2.5", "2", "2,000", "2,400", "2,200", "1 I4", "6 kill"]
    assert rows(page)[2][:4] == ["simulation", "memory", "1.2 virtual", "50"]
    newest = rows(page)[4]
    assert newest[1:6] == ["0123456789ab", "simulation", "memory", "2", "0 to 49"]
    assert newest[8] == "1,040 at failpoints, 60 at random"
    assert rows(page)[5][10] == "0"


def test_an_entry_says_where_it_comes_from() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", current_commit())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", now())
    assert set(machine()) == {"cores", "python", "system"}
