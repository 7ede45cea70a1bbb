"""Bugs of cron."""

from verification.planted.bugs import Bug, CronSimulated, Tested, bug

BUGS: tuple[Bug, ...] = (
    bug(
        "cron: a time is fired without the fence",
        CronSimulated(invariants=("C1",)),
        (
            "store/sql/cron_rows.py",
            ".where(_crons.name == seen.name, unchanged, same_run, _crons.paused == 0)",
            ".where(_crons.name == seen.name, _crons.paused == 0)",
        ),
    ),
    bug(
        "cron: the clock of the process says what is due",
        CronSimulated(invariants=("C3",)),
        (
            "scheduler.py",
            "        clock, names = self._outbox.own_clock, list(self._plans)\n",
            "        clock, names = (lambda _connection: self._env.now_us()), list(self._plans)\n",
        ),
    ),
    bug(
        "cron: missed times are all made up for",
        CronSimulated(invariants=("C3",)),
        (
            "core/cron.py",
            (
                "    latest_us, later_us = (_latest_from_end if schedule.counts_from_end else _latest)"
                "(schedule, next_us, now_us)\n"
                "    is_due = latest_us is not None and now_us - latest_us <= grace_us\n"
            ),
            "    latest_us, later_us, is_due = next_us, schedule.next_after(next_us), True\n",
        ),
        ("scheduler.py", "plan.checked(decided.next_us, now_us)", "decided.next_us"),
        ("store/sql/cron_rows.py", "        if now_us > move.until_us:\n", "        if False:\n"),
    ),
    bug(
        "cron: the entry moves on first, and its task is added then",
        CronSimulated(invariants=("C4",)),
        ("scheduler.py", "clock=self._outbox.own_clock, move=move)", "clock=self._outbox.own_clock, move=alone)"),
        (
            "scheduler.py",
            '        self._env.fp("cron.fire.before")\n',
            '        alone = move._replace(task=None)\n        self._env.fp("cron.fire.before")\n',
        ),
        (
            "scheduler.py",
            "            self._outbox.committed(1)\n",
            "            await self._outbox.store.add([move.task])\n            self._outbox.committed(1)\n",
        ),
    ),
    bug(
        "cron: an interval counts from the begin of its run",
        CronSimulated(invariants=("C5",)),
        (
            "scheduler.py",
            "None if waits_for_end else plan.checked(decided.next_us, now_us)",
            "plan.checked(decided.next_us, now_us)",
        ),
    ),
    bug(
        "cron: who stood still fires what is too late",
        Tested(
            "tests/cron/test_scheduler.py",
            "test_who_stood_still_between_looking_and_firing_does_not_fire_what_is_too_late",
        ),
        ("store/sql/cron_rows.py", "        if now_us > move.until_us:\n", "        if False:\n"),
    ),
    bug(
        "cron: a broken entry holds up the others",
        Tested("tests/cron/test_scheduler.py", "test_a_broken_entry_holds_up_no_other_and_does_not_spin"),
        (
            "scheduler.py",
            "                errors.append(error)\n        if errors:\n",
            "                raise error\n        if errors:\n",
        ),
    ),
)
