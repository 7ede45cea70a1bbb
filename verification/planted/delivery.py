"""Bugs of answers, transactions and enqueue."""

from verification.planted.bugs import Bug, Tested, breaks, bug

BUGS: tuple[Bug, ...] = (
    bug(
        "acknowledge when the response begins",
        breaks("I7"),
        (
            "delivery.py",
            "            return partial(self._target.app, self.scope(), self.receive, self.answer.take)\n",
            (
                "            async def take(message: Message) -> None:\n"
                "                await self.answer.take(message)\n"
                "                self._ended_at = self._env.monotonic()\n"
                "                self._end()\n\n"
                "            return partial(self._target.app, self.scope(), self.receive, take)\n"
            ),
        ),
        ("answer.py", "is_success(self.status) and self.finished and", "is_success(self.status) and"),
    ),
    bug(
        "acknowledge despite an exception",
        breaks("I7"),
        (
            "delivery.py",
            "        if error is None and not self._late and answer",
            "        if not self._late and answer",
        ),
    ),
    bug(
        "acknowledge an answer that came after the deadline",
        breaks("I7"),
        (
            "delivery.py",
            "        if error is None and not self._late and answer",
            "        if error is None and answer",
        ),
    ),
    bug(
        "acknowledge a redirect",
        breaks("I7"),
        ("answer.py", "    return 200 <= status < 300\n", "    return 200 <= status < 400\n"),
    ),
    bug(
        "acknowledge a commit that failed after the answer",
        Tested("tests/handlers/test_effects.py", "test_a_row_that_is_still_there_fails_the_attempt"),
        (
            "exchange.py",
            "            _check_completion(unit, delivery)\n            await unit.commit()\n",
            (
                "            _check_completion(unit, delivery)\n"
                "            try:\n"
                "                await unit.commit()\n"
                "            except Exception:\n"
                "                await unit.rollback()\n"
            ),
        ),
    ),
    bug(
        "no fence in complete: a zombie's effect is kept",
        breaks("I5", "I27", store="sqlite"),
        (
            "unit_of_work.py",
            "            delivery.lease_lost = True\n            raise TaskLeaseExpiredError(",
            "            return\n            raise TaskLeaseExpiredError(",
        ),
    ),
    bug(
        "the effect commits without the completion",
        breaks("I27", store="sqlite"),
        ("unit_of_work.py", "        return self._complete\n", "        return None\n"),
    ),
    bug(
        "the response leaves before the commit",
        breaks("I28", store="sqlite"),
        (
            "exchange.py",
            '            await self._end_unit(int(message["status"]))\n        await self._send(message)\n',
            (
                "            await self._send(message)\n"
                '            await self._end_unit(int(message["status"]))\n'
                "        else:\n"
                "            await self._send(message)\n"
            ),
        ),
    ),
    bug(
        "tasks are inserted after the commit, not in it",
        breaks("I2", "I28", store="sqlite"),
        (
            "transaction.py",
            "    session.add_all(rows)\n    _ledger(session, outbox, unit).rows.extend(rows)\n",
            (
                "    from sqlalchemy import insert\n"
                "    from hookware.store.sql.tables import task_table\n"
                "    names = [column.name for column in task_table.columns]\n"
                "    given = [{name: getattr(row, name) for name in names} for row in rows]\n"
                "    values = [{name: value for name, value in row.items() if value is not None} for row in given]\n"
                "    if values:\n"
                "        def insert_now(_session: Session) -> None:\n"
                "            outbox.runner.run_blocking(lambda c: c.execute(insert(task_table), values))\n\n"
                '        event.listen(session, "after_commit", insert_now, once=True)\n'
                "    _ledger(session, outbox, unit)\n"
            ),
        ),
    ),
    bug(
        "an error response of a request commits its tasks",
        breaks("I2", "I28", store="sqlite"),
        (
            "exchange.py",
            "            if status < 400:\n                await self._unit.commit()\n",
            "            if status:\n                await self._unit.commit()\n",
        ),
    ),
)
