"""The planted bugs: that they can still be planted, and that a few of them are caught; the command catches them all."""

import ast
from pathlib import Path

import pytest

from verification.ledger import PAGE
from verification.planted.bugs import Bug, Edit, Simulated, breaks
from verification.planted.campaign import BUGS, names_on, page_with
from verification.planted.plant import ROOT, Catch, catch, copied_tree, planted_text, with_bug

FAST = ("acknowledge despite an exception", "not due exactly at the ETA: < instead of <=")
BY_NAME = {bug.name: bug for bug in BUGS}


def test_there_are_enough_of_them_and_each_has_its_name() -> None:
    assert len(BY_NAME) == len(BUGS) >= 20
    assert all(edit.old != edit.new for bug in BUGS for edit in bug.edits)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_bug_can_still_be_planted(name: str) -> None:
    for edit in BY_NAME[name].edits:
        ast.parse(planted_text(BY_NAME[name], edit.file))


def test_the_page_has_them_all() -> None:
    assert names_on(PAGE.read_text()) == list(BY_NAME), "run `python -m verification planted`"
    assert "nobody" not in PAGE.read_text().partition("<!-- planted: begin -->")[2]


def test_a_text_that_is_not_there_exactly_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hookware").mkdir()
    (tmp_path / "hookware" / "file.py").write_text("a = 1\nb = 1\n")
    rotten = Bug(name="rotten", edits=(Edit(file="file.py", old="= 1", new="= 2"),), caught_by=breaks("I1"))
    with pytest.raises(ValueError, match=r"rotten: hookware/file.py holds 2 times '= 1', not once"):
        planted_text(rotten, "file.py", tmp_path)
    (tmp_path / "hookware" / "file.py").write_text("a = 1\n")
    assert planted_text(rotten, "file.py", tmp_path) == "a = 2\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bugs_are_caught_in_a_copy_and_the_work_tree_is_left_alone() -> None:
    before = {path: path.read_bytes() for path in (ROOT / "hookware").rglob("*.py")}
    with copied_tree() as copy:
        for name in FAST:
            caught = catch(BY_NAME[name], copy)
            assert caught.by, caught.output
        with with_bug(BY_NAME[FAST[0]], copy):
            assert (copy / "hookware" / "delivery.py").read_bytes() != before[ROOT / "hookware" / "delivery.py"]
        assert {copy / path.relative_to(ROOT): text for path, text in before.items()} == {
            path: path.read_bytes() for path in (copy / "hookware").rglob("*.py")
        }
    assert before == {path: path.read_bytes() for path in (ROOT / "hookware").rglob("*.py")}


@pytest.mark.slow
def test_a_check_that_hangs_has_caught_nothing() -> None:
    with copied_tree() as copy:
        caught = catch(BY_NAME[FAST[0]], copy, most_seconds=0.01)
    assert (caught.by, caught.output) == ("", "timed out after 0.01 s")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_a_bug_nobody_cries() -> None:
    harmless = Bug(
        name="harmless",
        edits=(Edit(file="dispatcher.py", old='"""CLAIM > DELIVER', new='"""Claim > DELIVER'),),
        caught_by=Simulated(invariants=("I1", "I3", "I5", "I7"), seeds=2),
    )
    with copied_tree() as copy:
        assert catch(harmless, copy).by == ""


def test_the_table_says_who_caught_what() -> None:
    catches = [
        Catch(bug=BUGS[0], by="simulation on memory, seed 3: I4", seconds=2.4, output=""),
        Catch(bug=BUGS[1], by="", seconds=60.0, output="..."),
    ]
    page = page_with(catches, "a\n<!-- planted: begin -->\nold\n<!-- planted: end -->\nb\n")
    assert page.startswith("a\n<!-- planted: begin -->\n| planted bug | caught by | seconds |\n|---|---|---|\n")
    assert f"| {BUGS[0].name} | simulation on memory, seed 3: I4 | 2 |\n| {BUGS[1].name} | **nobody** | 60 |\n" in page
    assert page.endswith("|\n<!-- planted: end -->\nb\n")
    assert names_on(page) == [BUGS[0].name, BUGS[1].name]
