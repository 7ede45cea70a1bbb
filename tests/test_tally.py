"""The line at the end of a process: how many tasks ran, and what became of them."""

from dataclasses import replace

import pytest

from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.events import AttemptSettled, AttemptStarted, TasksCommitted
from hookware.tally import Tally
from tests.samples import leased_task


def after(*decisions: Decision | None) -> str:
    """Give what is said after attempts with these decisions; None has not ended."""
    tally = Tally()
    for number, decision in enumerate(decisions):
        task = leased_task(number)
        tally.note(AttemptStarted(task))
        if decision is not None:
            tally.note(AttemptSettled(task, decision, accepted=True, duration_seconds=0))
    return str(tally)


@pytest.mark.parametrize(
    ("decision", "what"),
    [
        (Complete(), "completed"),
        (Retry(1, None, "no"), "to be tried again"),
        (Die("retries", None, "no"), "dead"),
        (Release(), "given back"),
        (None, "not settled"),
    ],
)
def test_each_end_has_its_words(decision: Decision | None, what: str) -> None:
    assert after(decision) == f"1 attempt (1 {what})"


def test_ends_are_added_up_and_those_that_did_not_happen_left_out() -> None:
    assert after(Complete(), Complete(), None, Release()) == "4 attempts (2 completed, 1 given back, 1 not settled)"
    assert after() == "no task ran"


def test_what_was_refused_is_not_settled() -> None:
    tally, task = Tally(), leased_task()
    tally.note(AttemptStarted(task))
    tally.note(AttemptSettled(task, Complete(), accepted=False, duration_seconds=0))
    assert str(tally) == "1 attempt (1 not settled)"


def test_what_the_reaper_takes_back_from_others_did_not_run_here() -> None:
    tally = Tally()
    tally.note(TasksCommitted(3))
    tally.note(AttemptStarted(leased_task()))
    tally.note(AttemptSettled(replace(leased_task(), fence=0), Retry(0, None, ""), accepted=True, duration_seconds=0))
    assert str(tally) == "1 attempt (1 not settled)"
