"""Bugs of leases, fences, clocks and loops."""

from verification.planted.bugs import Bug, breaks, bug

BUGS: tuple[Bug, ...] = (
    bug(
        "leases are renewed on the handlers' own event loop",
        breaks("I4"),
        (
            "heartbeat.py",
            "        if self._ticker is None:\n",
            "        if self._ticker:\n",
        ),
        (
            "dispatcher.py",
            '                loops.start_soon(self._supervised, "fencing", self._cut_lost_attempts)\n',
            (
                '                loops.start_soon(self._supervised, "fencing", self._cut_lost_attempts)\n'
                '                loops.start_soon(self._supervised, "heartbeat", self._beat)\n'
            ),
        ),
        (
            "dispatcher.py",
            "    async def _cut_lost_attempts(self) -> None:\n",
            (
                "    async def _beat(self) -> None:\n"
                "        while True:\n"
                "            await self._env.sleep(self._config.lease_seconds / 4)\n"
                "            self._heartbeat.beat()\n\n"
                "    async def _cut_lost_attempts(self) -> None:\n"
            ),
        ),
    ),
    bug(
        "a task is handed over before the commit that brings it",
        breaks("I2", "I4", "I5", "I7", "I15", store="sqlite"),
        (
            "store/sql/row_events.py",
            "                return [place]\n",
            "                place.committed()\n                return [place]\n",
        ),
    ),
    bug(
        "the stop does not wait for commits that are under way",
        breaks("I20"),
        (
            "dispatcher.py",
            "        return bool(self._attempts or self.hand_off.taken_count)\n",
            "        return bool(self._attempts)\n",
        ),
    ),
    bug(
        "the heartbeat stops before running tasks have drained",
        breaks("I4"),
        (
            "dispatcher.py",
            '        self._env.fp("dispatch.shutdown.1")\n',
            '        self._heartbeat.stop()\n        self._env.fp("dispatch.shutdown.1")\n',
        ),
    ),
    bug(
        "a shutdown leaves claimed tasks that have not begun",
        breaks("I20", "I4"),
        (
            "deliverer.py",
            "            if scope.cancel_called or self._is_stale(attempt) or attempt.postponed or self.stopping:\n",
            (
                "            if self.stopping:\n"
                "                return self._on_concluded(attempt, None)\n"
                "            if scope.cancel_called or self._is_stale(attempt) or attempt.postponed:\n"
            ),
        ),
    ),
    bug(
        "an attempt that was interrupted counts as failed",
        breaks("I13"),
        (
            "delivery.py",
            "            return Interrupted()\n        return outcome",
            '            return Failed(None, "interrupted")\n        return outcome',
        ),
    ),
    bug(
        "a claim whose answer came late is begun all the same",
        breaks("I15"),
        (
            "deliverer.py",
            "        return self._heartbeat.age(attempt.lease) > self._lease_seconds * STALE_PART\n",
            "        return False\n",
        ),
    ),
    bug(
        "hints only: the store is never polled",
        breaks("I18", "I19", "I1"),
        (
            "dispatcher.py",
            "        self._ask_at = now + min(self._poll() * polls, self.slowdown.remaining())\n",
            '        self._ask_at = float("inf")\n',
        ),
    ),
    bug(
        "a claim that a shutdown cancels is forgotten, with what it has leased",
        breaks("I20", seeds=120),
        (
            "dispatcher.py",
            "        with anyio.CancelScope(shield=True) as self._claim_on_its_way:\n",
            "        with anyio.CancelScope() as self._claim_on_its_way:\n",
        ),
    ),
    bug(
        "a loop that raised is not started again",
        breaks("I18", "I19", "I1", "I17"),
        ("supervisor.py", "        delay = min(delay * 2, LONGEST_DELAY_SECONDS)\n", "        return\n"),
    ),
    bug(
        "what a dead process held is never looked for",
        breaks("I17", "I1"),
        ("reaper.py", "            if await self.reap():\n", "            if False:\n"),
    ),
    bug(
        "the backoff doubles one failure too late",
        breaks("I11"),
        (
            "core/retry.py",
            "    exponent = min(failure_count - 1, int(doublings), _MOST_DOUBLINGS)\n",
            (
                "    failure_count = max(1, failure_count - 1)\n"
                "    exponent = min(failure_count - 1, int(doublings), _MOST_DOUBLINGS)\n"
            ),
        ),
    ),
    bug(
        "the retry limit is off by one",
        breaks("I12"),
        ("core/retry.py", "failure_count <= options.task_retry_limit", "failure_count < options.task_retry_limit"),
    ),
    bug(
        "poison has one crash more than the limit",
        breaks("I22"),
        (
            "core/lifecycle.py",
            "    if crash_count >= given.crash_limit:\n",
            "    if crash_count > given.crash_limit:\n",
        ),
    ),
)
