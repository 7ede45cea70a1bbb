"""Test what your tasks do: the fixture `tasks`, and what it is made of.

    def test_signup(client, tasks):
        client.post("/signup", data={"email": "a@b.c"})
        tasks.assert_added(url="/send-mail", params={"to": "a@b.c"})
        assert tasks.run().ok == 1

Tasks run by the dispatcher, store and decisions that run them elsewhere: only their time is the test's to say.
`hookware.testing.idempotence` needs Hypothesis: `pip install "hookware[testing]"`.
"""

from hookware.testing.clock import Clock
from hookware.testing.faults import PlannedError
from hookware.testing.matching import AddedTask
from hookware.testing.rehearsal import Mode
from hookware.testing.report import EndlessTasksError, HandlerFailedError, Ran, Report
from hookware.testing.tasks import Tasks, Wishes, rehearse

__all__ = [
    "AddedTask",
    "Clock",
    "EndlessTasksError",
    "HandlerFailedError",
    "Mode",
    "PlannedError",
    "Ran",
    "Report",
    "Tasks",
    "Wishes",
    "rehearse",
]
