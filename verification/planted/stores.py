"""Bugs of the stores."""

from verification.planted.bugs import Bug, Tested, breaks, bug

BUGS: tuple[Bug, ...] = (
    bug(
        "no fence in settle, in memory",
        breaks("I5", "I7", "I13"),
        ("store/memory.py", "row.state is State.LEASED and row.fence == lease.fence", "row.state is State.LEASED"),
    ),
    bug(
        "no fence in settle, in SQL",
        breaks("I5", "I7", "I13", store="sqlite"),
        (
            "store/sql/read.py",
            "    return by_key, tuple_(_columns.id, _columns.fence).in_(leases), keyed(State.LEASED)\n",
            "    return by_key, keyed(State.LEASED)\n",
        ),
        (
            "store/sql/settle.py",
            '    _columns.id == bindparam("task_id"), _columns.fence == bindparam("held_fence"), keyed(State.LEASED)\n',
            '    _columns.id == bindparam("task_id"), keyed(State.LEASED)\n',
        ),
        (
            "store/sql/settle.py",
            'one = _columns.id == bindparam("task_id"), _columns.fence == bindparam("held_fence"), ',
            'one = _columns.id == bindparam("task_id"), ',
        ),
        ("store/sql/settle.py", "expanding=True)), leases, keyed(", "expanding=True)), keyed("),
        (
            "store/sql/settle.py",
            "    return [_take(done, settlement.lease) for settlement in settlements]\n",
            "    return [True for settlement in settlements]\n",
        ),
    ),
    bug(
        "renew without the fence, in memory",
        breaks("I5"),
        (
            "store/memory.py",
            "            held = [row for row in map(self._held, leases) if row is not None]\n",
            (
                "            rows = [self._rows.get(lease.task_id) for lease in leases]\n"
                "            held = [row for row in rows if row is not None and row.state is State.LEASED]\n"
            ),
        ),
    ),
    bug(
        "renew without the fence, in SQL",
        Tested("tests/store/test_sql.py", "test_only_leases_that_are_still_held"),
        (
            "store/sql/settle.py",
            "        still_held = select(_columns.id).where(*held(some))\n",
            "        still_held = select(_columns.id).where(_columns.id.in_([lease.task_id for lease in some]))\n",
        ),
    ),
    bug(
        "a refused settlement changes the row",
        breaks("I5"),
        (
            "store/memory.py",
            "        if row is None:\n            return False\n        takes_back",
            (
                "        if row is None:\n"
                "            row = self._rows.get(settlement.lease.task_id)\n"
                "            if row is not None and isinstance(decision, Retry | Die):\n"
                "                self._put(replace(row, crash_count=row.crash_count + 1))\n"
                "            return False\n"
                "        takes_back"
            ),
        ),
    ),
    bug(
        "a lease that was renewed meanwhile is taken back",
        Tested("tests/store/test_memory.py", "test_a_lease_that_was_renewed_after_it_was_found_ended"),
        (
            "store/memory.py",
            "        if takes_back and settlement.lease_until_us != row.lease_until_us:\n",
            "        if takes_back and settlement.lease_until_us is None:\n",
        ),
    ),
    bug(
        "node clock for the ETA",
        breaks("I3", store="sqlite"),
        (
            "store/sql/store.py",
            "        self._clock, self._stamp = clock, stamp\n",
            "        self._clock, self._stamp = lambda _connection: env.now_us(), stamp\n",
        ),
    ),
    bug(
        "tasks are claimed a second early",
        breaks("I3"),
        (
            "store/memory_claim.py",
            "items() if rows[0].eta_us <= self._now_us]",
            "items() if rows[0].eta_us <= self._now_us + 1_000_000]",
        ),
        (
            "store/memory_claim.py",
            "for row in self._waiting[name] if row.eta_us <= self._now_us]",
            "for row in self._waiting[name] if row.eta_us <= self._now_us + 1_000_000]",
        ),
    ),
    bug(
        "not due exactly at the ETA: < instead of <=",
        Tested("tests/store/test_memory.py", "test_a_task_is_due_exactly_at_its_eta"),
        (
            "store/memory_claim.py",
            "for row in self._waiting[name] if row.eta_us <= self._now_us]",
            "for row in self._waiting[name] if row.eta_us < self._now_us]",
        ),
    ),
    bug(
        "LIMIT before the excluded queues are filtered out",
        Tested("tests/store/test_memory.py", "test_excluded_queues_are_left_alone"),
        (
            "store/memory_claim.py",
            "key=lambda row: (row.eta_us, row.task.id)):\n",
            "key=lambda row: (row.eta_us, row.task.id))[:1]:\n",
        ),
    ),
    bug(
        "a claim goes on from the last id seen",
        breaks("I1", "I18"),
        (
            "store/memory_claim.py",
            "        return [row for some in picked.values() for row in some]\n",
            (
                '        last = int(self._queues.cursors.get("last id", "0"))\n'
                "        rows = [row for some in picked.values() for row in some if row.task.id > last]\n"
                '        self._queues.cursors["last id"] = str(max([last, *(row.task.id for row in rows)]))\n'
                "        return rows\n"
            ),
        ),
    ),
    bug(
        "more is claimed than there are slots",
        breaks("I15"),
        ("store/memory_claim.py", "min(slots, self._allowed", "min(slots + 1, self._allowed"),
        ("store/memory_claim.py", "share_slots(waiting, slots)", "share_slots(waiting, slots + 1)"),
    ),
    bug(
        "a limit key counts nothing that runs already",
        Tested("tests/store/test_memory.py", "test_no_more_run_of_a_limit_key_than_the_queue_says"),
        ("core/fairness.py", "Counter(running)", "Counter[str]()"),
    ),
    bug(
        "the turn of fair keys begins anew with each claim",
        Tested("tests/store/test_memory.py", "test_fair_keys_take_turns_in_one_claim_and_the_turn_goes_on_in_the_next"),
        ("core/fairness.py", "bisect_right(keys, last_key)", "0"),
    ),
    bug(
        "a queue's limit counts ended leases",
        Tested("tests/store/test_memory.py", "test_an_ended_lease_counts_no_more"),
        ("store/memory_claim.py", "State.LEASED and row.lease_until_us > now_us:", "State.LEASED:"),
    ),
    bug(
        "a start takes no token, in SQL",
        Tested("tests/store/test_sql.py", "test_a_bucket_is_emptied_and_then_refilled_at_the_rate"),
        ("store/sql/queues.py", "    if rows:\n", "    if False:\n"),
    ),
    bug(
        "what is counted before the lock decides, in SQL",
        Tested("tests/store/test_queue_races.py", "test_who_waits_for_a_queue_counts_what_began_meanwhile"),
        ("store/sql/board.py", "running.total, self._now_us)", "self._seen_running.get(name, 0), self._now_us)"),
    ),
    bug(
        "a claim sets no end to the lease",
        breaks("I17"),
        (
            "store/memory.py",
            "            lease_until_us=min(now_us + wish.lease_us, LATEST_US),\n",
            "            lease_until_us=LATEST_US,\n",
        ),
    ),
    bug(
        "attempts are counted after the run",
        breaks("I13"),
        (
            "store/memory.py",
            "            attempt_count=row.attempt_count + 1,\n",
            "            attempt_count=row.attempt_count,\n",
        ),
        (
            "store/memory_rows.py",
            "        crash_count=row.crash_count + decision.crashed,\n",
            "        attempt_count=row.attempt_count + 1,\n        crash_count=row.crash_count + decision.crashed,\n",
        ),
    ),
    bug(
        "a release does not refund the attempt",
        breaks("I13"),
        (
            "store/memory.py",
            "                count = row.attempt_count - 1\n",
            "                count = row.attempt_count\n",
        ),
    ),
    bug(
        "a release does not refund the attempt, in SQL",
        breaks("I13", store="sqlite"),
        ("store/sql/settle.py", "            attempt_count=_columns.attempt_count - 1,\n", ""),
    ),
    bug(
        "crashes are not counted",
        breaks("I22"),
        ("store/memory_rows.py", "crash_count=row.crash_count + decision.crashed", "crash_count=row.crash_count"),
    ),
    bug(
        "the second of a name wins it from the first",
        breaks("I8"),
        (
            "store/memory.py",
            "                if holder is None or not holder.holds(now_us):\n                    holder",
            "                if True:\n                    holder",
        ),
    ),
    bug(
        "no tombstone: a name is free as soon as its task is gone",
        breaks("I8"),
        (
            "store/memory.py",
            "                self._names[row.key] = Holder(row.task.id, min(now_us + self._tombstone_us, LATEST_US))\n",
            "                self._names.pop(row.key, None)\n",
        ),
    ),
    bug(
        "no tombstone, in SQL: the name stays taken for ever",
        breaks("I8", store="sqlite"),
        (
            "store/sql/settle.py",
            "        tombstone(connection, gone, min(now_us + tombstone_us, LATEST_US), now_us)\n",
            "",
        ),
    ),
)
