"""What is to be kept of attempts: which, and the times of them."""

from typing import get_args

import pytest

from hookware.answer import Answer
from hookware.attempt import Attempt
from hookware.config import Config
from hookware.core.history import AttemptHistory
from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.recorder import Recorder
from tests.samples import SteppedEnv, leased_task

RETRY, DIE = Retry(5, 503, "busy"), Die("retries", 500, "no")


def recorder(env: SteppedEnv, history: AttemptHistory = "failures") -> Recorder:
    return Recorder(env, Config(attempt_history=history), "me")


def an_attempt(env: SteppedEnv, *, began: bool = True) -> Attempt:
    """Give an attempt that was claimed at 1 s, and began at 3 s, of the clock that never steps."""
    env.advance(1)
    attempt = Attempt(leased_task(), env.monotonic())
    env.advance(2)
    attempt.began_at = env.monotonic() if began else 0.0
    return attempt


@pytest.mark.parametrize(
    ("history", "decision", "outcome"),
    [
        ("failures", RETRY, "retry"),
        ("failures", DIE, "dead"),
        ("failures", Release(), "given back"),
        ("failures", Complete(), None),
        ("all", RETRY, "retry"),
        ("all", Complete(), "completed"),
        *[("off", decision, None) for decision in (RETRY, DIE, Release(), Complete())],
    ],
)
def test_which_are_kept(history: AttemptHistory, decision: Decision, outcome: str | None) -> None:
    assert history in get_args(AttemptHistory)
    env = SteppedEnv()
    kept = recorder(env, history).of(an_attempt(env), decision)
    assert (None if kept is None else kept.outcome) == outcome


def test_what_was_given_back_before_it_began_was_no_attempt() -> None:
    env = SteppedEnv()
    assert recorder(env).of(an_attempt(env, began=False), Release()) is None


def test_times_are_the_databases_carried_on_from_the_claim() -> None:
    env = SteppedEnv()
    attempt = an_attempt(env)
    env.advance(4)
    kept = recorder(env).of(attempt, RETRY)
    assert kept is not None
    claimed_us = attempt.task.claimed_us
    assert (kept.began_us, kept.ended_us) == (claimed_us + 2_000_000, claimed_us + 6_000_000)
    assert (kept.duration_us, kept.owner, kept.number) == (4_000_000, "me", 1)


def test_what_could_not_be_delivered_has_neither_a_begin_nor_a_response() -> None:
    env = SteppedEnv()
    kept = recorder(env).of(an_attempt(env, began=False), DIE)
    assert kept is not None
    assert (kept.began_us, kept.status, kept.error, kept.response_byte_count) == (None, None, "no", 0)


async def test_a_response_without_a_last_byte_shows_how_far_it_came() -> None:
    env = SteppedEnv()
    attempt, answer = an_attempt(env), Answer(env)
    attempt.delivery.answer = answer
    await answer.take({"type": "http.response.start", "status": 500, "headers": iter([(b"x-a", b"1")])})
    await answer.take({"type": "http.response.body", "body": b"half", "more_body": True})
    kept = recorder(env).of(attempt, RETRY)
    assert kept is not None
    assert (kept.status, kept.response_headers, kept.response_text) == (500, (("x-a", "1"),), "half")


def test_delivered_again_after_a_conflict_it_still_leaves_its_record_with_the_handlers_transaction() -> None:
    env = SteppedEnv()
    attempt = an_attempt(env)
    recorder(env, "all").hold(attempt)
    assert attempt.again(env.monotonic())
    kept = attempt.delivery.completion()
    assert kept is not None
    assert kept.outcome == "completed"


def test_only_where_all_are_kept_a_handlers_transaction_leaves_one() -> None:
    env = SteppedEnv()
    attempt = an_attempt(env)
    recorder(env).hold(attempt)
    assert attempt.delivery.completion() is None


def test_what_cannot_be_told_keeps_no_attempt_from_being_settled(caplog: pytest.LogCaptureFixture) -> None:
    env = SteppedEnv()
    attempt = an_attempt(env)
    attempt.delivery.answer = answer = Answer(env)
    answer.headers = ((b"a", b"b", b"c"),)  # type: ignore[assignment]  # what must never be there
    assert recorder(env).of(attempt, RETRY) is None
    assert "no record of its attempt could be made" in caplog.text
