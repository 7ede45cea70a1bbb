"""Why a task does not run: a sentence with numbers for every reason that there is."""

from dataclasses import replace

import pytest

from hookware.core.amounts import Count
from hookware.core.lifecycle import State
from hookware.core.overview import Process
from hookware.core.queue import QueueSettings
from hookware.core.retry import RetryOptions
from hookware.core.task_facts import TaskFacts
from hookware.core.why import why

NOW = 1_700_000_000_000_000
S = 1_000_000
PROCESS = Process(
    owner="o", host="web-1", pid=12, version="1", started_us=NOW, seen_us=NOW, concurrency=10,
    running_count=0, dispatches=True,
)  # fmt: skip
GONE = replace(PROCESS, owner="g", gone_us=NOW - 90 * S, seen_us=NOW - 90 * S)
DUE = TaskFacts(
    now_us=NOW, task_id=7, state=State.PENDING, name="n", queue_name="mail", url="/worker?a=1", created_us=NOW - 9 * S,
    eta_us=NOW - 5 * S, processes=[PROCESS],
)  # fmt: skip
LEASED = replace(
    DUE, state=State.LEASED, owner="o", attempt_count=2, attempt_us=NOW - 3 * S, lease_until_us=NOW + 27 * S
)  # fmt: skip
DEAD = replace(DUE, state=State.DEAD, ended_us=NOW - 60 * S, attempt_count=4, crash_count=3, last_error="no")


def limited(**settings: object) -> TaskFacts:
    return replace(DUE, settings=QueueSettings(name="mail", **settings))  # type: ignore[arg-type]  # its fields


CASES = {
    "about-to-begin": (
        DUE,
        "Nothing holds it back: it has been due for 5 s, and begins within a poll of one of 1 process.",
    ),
    "not-due": (
        replace(DUE, eta_us=NOW + 90 * S),
        "It is not due until 2023-11-14 22:14:50 UTC, in 1 min 30 s.",
    ),
    "retry": (
        replace(
            DUE, eta_us=NOW + 12 * S, attempt_count=3, last_error="timed\n out", retry=RetryOptions(task_retry_limit=9)
        ),
        (
            "It waits for its attempt 4 of 10 until 2023-11-14 22:13:32 UTC, in 12 s, because the last one "
            "failed: timed out."
        ),
    ),
    "paused": (
        replace(DUE, paused=True, paused_us=NOW - 7200 * S, paused_by="ann"),
        "Its queue mail has been paused by ann for 2 h: resume it.",
    ),
    "concurrency": (
        replace(limited(max_concurrent_requests=3), running=Count(3), running_since_us=NOW - 12 * S),
        "Its queue mail is full: 3 of 3 run, the oldest for 12 s: it begins when one of them ends.",
    ),
    "rate": (
        replace(limited(rate=0.5), next_token_us=400000, ahead=Count(4)),
        "The rate of its queue mail, 0.5 a second, is used up: the next token comes in 0.4 s.",
    ),
    "rate of none": (
        replace(limited(rate=0.0), next_token_us=None),
        "The rate of its queue mail is 0 a second: nothing begins.",
    ),
    "limit-key": (
        replace(limited(limit_per_key=2), limit_key="acme", key_running=2, key_holder=5),
        "2 of 2 tasks with its limit key acme run, task 5 is one: it begins when one of them ends.",
    ),
    "order": (
        replace(DUE, ahead=Count(1204), fair_key="acme"),
        (
            "1,204 due tasks of its queue mail come before it, and those of other fair keys take turns with "
            "its acme; it has been due for 5 s."
        ),
    ),
    "slowed": (
        replace(DUE, processes=[replace(PROCESS, slowed=(("mail", NOW + 20 * S),))]),
        ("The process web-1 (pid 12) leaves its queue mail alone for 20 s more, because a handler of it answered 503."),
    ),
    "slots": (
        replace(DUE, processes=[replace(PROCESS, running_count=10)]),
        ("All slots are busy: 1 process runs 10 of 10 tasks at once. Start more, or raise their concurrency=."),
    ),
    "name": (
        replace(DUE, name_holder=5),
        ("Its name n is held by task 5: when its turn comes, it will be put aside as a duplicate and not run."),
    ),
    "name of the past": (
        replace(DUE, name_holder=5, name_until_us=NOW),
        (
            "Its name n is taken until 2023-11-14 22:13:20 UTC: when its turn comes, it will be put aside as a "
            "duplicate and not run."
        ),
    ),
    "key": (
        replace(DUE, twin_id=5, dedup_key="k"),
        "Task 5 waits with the same key k: that one runs, and this one is removed.",
    ),
    "no-dispatcher": (
        replace(DUE, processes=[GONE, replace(PROCESS, dispatches=False)]),
        (
            "No process that runs tasks is alive: the last one, web-1 (pid 12), was last seen 1 min 30 s ago; "
            "1 process with dispatch off only stores them."
        ),
    ),
    "clock": (
        replace(DUE, created_us=NOW + 7200 * S, eta_us=NOW + 7200 * S),
        (
            "It was added at 2023-11-15 00:13:20 UTC by the database's clock, which says 2023-11-14 22:13:20 "
            "UTC now: the clock was 2 h ahead then, or is that much behind now; the task waits for the time "
            "that was reckoned by it. Let it run now, or postpone it."
        ),
    ),
    "clock of the processes": (
        replace(DUE, processes=[replace(PROCESS, clock_offset_us=-7200 * S)]),
        (
            "The database's clock says 2023-11-14 22:13:20 UTC, which is 2 h behind the clocks of the "
            "processes: tasks with an eta= begin late by as much. Set it right."
        ),
    ),
    "running": (
        LEASED,
        (
            "It runs: the process web-1 (pid 12) has had it for 3 s, in attempt 2; its lease holds for 27 s "
            "more unless it is renewed."
        ),
    ),
    "lease-expired": (
        replace(LEASED, lease_until_us=NOW - 2 * S),
        (
            "The process web-1 (pid 12) had it for 3 s and is gone, or frozen: its lease ended 2 s ago, and "
            "another process takes it back then."
        ),
    ),
    "lease-expired of a dead process": (
        replace(LEASED, owner="t|web-2|b|n|33|5", lease_until_us=NOW - 2 * S, processes=[]),
        (
            "The process web-2 (pid 33) had it for 3 s and is gone, or frozen: its lease ended 2 s ago, and "
            "another process takes it back then; but none that runs tasks is alive."
        ),
    ),
    "dead": (
        replace(DEAD, dead_reason="retries"),
        (
            "It has been dead for 1 min, because its 4 attempts have all failed, and its retry limit allows no "
            "more. The last error: no. It runs again if you retry it."
        ),
    ),
    "dead of crashes": (
        replace(DEAD, dead_reason="crashes", last_error=None),
        (
            "It has been dead for 1 min, because 3 of the processes that ran it died, or froze. It runs again "
            "if you retry it."
        ),
    ),
    "dead of something else": (
        replace(DEAD, dead_reason="x", last_error=None),
        "It has been dead for 1 min, because the reason is x. It runs again if you retry it.",
    ),
    "completed": (
        replace(DEAD, state=State.COMPLETED),
        "It has completed 1 min ago, in attempt 4, and is kept only to be looked at.",
    ),
    "pull": (
        replace(DUE, state=State.PULL),
        "It waits in the pull queue mail for whoever leases it: no process runs such tasks by itself.",
    ),
    "pull-leased": (
        replace(DUE, state=State.PULL, eta_us=NOW + 3 * S, attempt_count=2),
        "It is leased, for the 2. time: its lease ends in 3 s.",
    ),
    "not-due in a pull queue": (
        replace(DUE, state=State.PULL, eta_us=NOW + 3 * S),
        "It may be leased from 2023-11-14 22:13:23 UTC on, in 3 s.",
    ),
    "unknown": (
        TaskFacts(now_us=NOW, task_id=7),
        "There is no task 7: it has completed, or was deleted, or there never was one with this id.",
    ),
    "ended": (
        TaskFacts(now_us=NOW, task_id=7, queue_name="mail", name="n", name_until_us=NOW),
        (
            "There is no task 7: it has ended. Its name in queue mail was n, which stays taken until "
            "2023-11-14 22:13:20 UTC."
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_reason_has_its_sentence(case: str) -> None:
    facts, sentence = CASES[case]
    said = why(facts)
    assert said.sentence == sentence
    assert said.code == case.partition(" ")[0]
    assert {reason.code for reason in said.also} <= {"order", "not-due"}


def test_all_reasons_are_told_the_first_one_of_the_claim_first() -> None:
    facts = replace(
        DUE, paused=True, processes=[GONE], last_status=404, running=Count(1),
        settings=QueueSettings(max_concurrent_requests=1),
    )  # fmt: skip
    said = why(facts)
    assert [said.code, *(reason.code for reason in said.also)] == [
        "paused",
        "no-dispatcher",
        "concurrency",
        "wrong-url",
    ]
    assert str(said).count("Besides: ") == 3
    assert said.also[-1].sentence == (
        "The last answer was 404: no route and no handler of the app answers the path /worker. Correct its URL, or add "
        "one."
    )


@pytest.mark.parametrize("reason", ["retries", "permanent", "crashes", "undecodable", "duplicate", "cancelled"])
def test_every_reason_of_a_dead_task_is_explained(reason: str) -> None:
    assert f"the reason is {reason}" not in why(replace(DEAD, dead_reason=reason)).sentence


def test_a_long_error_is_cut_short() -> None:
    sentence = why(replace(DEAD, dead_reason="retries", last_error="x" * 4000)).sentence
    assert "x" * 200 + "…" in sentence
    assert len(sentence) < 400
