"""What is no cron entry is refused where it is written, with the value, the rule and the next step."""

import functools
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hookware import CronEntry, Error, Hookware, TaskRetryOptions, TaskRouter, cron
from hookware.errors import ConfigurationError, InvalidScheduleError

FILE = "sqlite:///unused.db"


def nothing() -> None:
    """Do nothing."""


def needs_a_value(key: str) -> None:
    """Need a value."""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (5, r"cron= takes the path of a cron\.yaml, .* or a list of CronEntry\(.*\), got 5"),
        ([5], r"a list of CronEntry\(.*\), got 5"),
        ("missing.yaml", r"missing\.yaml cannot be read: .*; give the path of a YAML file"),
        (Path("missing.yaml"), r"missing\.yaml cannot be read"),
        ({"cron": [{"url": "/a"}]}, r"cron\[0\]: .*schedule"),
        ({"cron": [{"url": "/a", "schedule": "61 * * * *"}]}, r"cron\[0\]\.schedule: the crontab expression '61"),
        ([CronEntry(url="/a", schedule="every day")], "'every day'"),
        ([CronEntry(url="/a", schedule="every day 09:00", timezone="Moon")], "the time zone 'Moon' is not known"),
        ([CronEntry(url="a", schedule="every day 09:00")], r"CronEntry\(url='a'.*is refused: .*must start with"),
        ([CronEntry(url="/a\0", schedule="every day 09:00")], "may not stand in it"),
        ([CronEntry(url=5, schedule="every day 09:00")], "url must be text, got 5"),  # type: ignore[arg-type]  # a mistake
        (
            [CronEntry(url="/a", schedule="every day 09:00", retry=3)],  # type: ignore[arg-type]  # a mistake
            r"retry must be TaskRetryOptions or None, got 3: write TaskRetryOptions\(...\)",
        ),
        *(
            (
                [CronEntry(url="/a", schedule="every day 09:00", attempt_deadline_seconds=seconds)],  # type: ignore[arg-type]  # a mistake
                "is refused: it must be more than 0, up to 86400",
            )
            for seconds in (0, -1, 86_401, float("nan"), "5")
        ),
    ],
)
def test_what_hookware_is_given(source: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error, match=says):
        Hookware(engine=FILE, cron=source)


@pytest.mark.parametrize("seconds", [0, 59.9, -1, float("nan"), "60", True])
def test_a_grace_of_less_than_a_minute(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="cron_grace_seconds must be a number of seconds from 60 to"):
        Hookware(engine=FILE, cron_grace_seconds=seconds)


def test_what_a_decorator_is_given() -> None:
    router = TaskRouter()
    with pytest.raises(InvalidScheduleError, match="'now and then'"):
        cron("now and then", router=router)(nothing)
    with pytest.raises(InvalidScheduleError, match="the time zone 'Moon'"):
        cron("every day 09:00", timezone="Moon", router=router)(nothing)
    with pytest.raises(ConfigurationError, match=r"/a\?b=c.*a handler's path has no query"):
        cron("every day 09:00", url="/a?b=c", router=router)(nothing)
    with pytest.raises(ConfigurationError, match="must start with"):
        cron("every day 09:00", url="a", router=router)(nothing)
    with pytest.raises(ConfigurationError, match=r"attempt_deadline_seconds 172800\.0 is refused"):
        cron("every day 09:00", attempt_deadline=timedelta(days=2), router=router)(nothing)
    with pytest.raises(ConfigurationError, match=r"needs values: .*key.*; a cron task carries none"):
        cron("every day 09:00", router=router)(needs_a_value)
    with pytest.raises(ConfigurationError, match="has no name to make a path of: pass url="):
        cron("every day 09:00", router=router)(functools.partial(nothing))
    assert router.cron_entries == []
    assert len(router) == 0


def test_a_handler_that_is_decorated_too() -> None:
    router, other = TaskRouter(), TaskRouter()
    handler = other.task_handler("/nothing")(nothing)
    with pytest.raises(ConfigurationError, match=re.escape("cron(url='/else') is on a handler of '/nothing': leave")):
        cron("every day 09:00", url="/else", router=other)(handler)
    with pytest.raises(ConfigurationError, match="of another TaskRouter: pass router= to cron, too"):
        cron("every day 09:00", router=router)(handler)
    assert cron("every day 09:00", url="/nothing", router=other)(handler) is handler
    assert [entry.url for entry in other.cron_entries] == ["/nothing"]


def test_a_path_that_another_handler_has() -> None:
    router = TaskRouter()
    router.task_handler("/taken")(needs_a_value)
    with pytest.raises(ConfigurationError, match="/taken already has a task handler, needs_a_value"):
        cron("every day 09:00", url="/taken", router=router)(nothing)


def test_a_module_that_is_imported_again_has_its_entries_once() -> None:
    router = TaskRouter()
    for _ in range(2):
        cron("every day 09:00", router=router)(nothing)
    hookware = Hookware(engine=FILE, router=router)
    names = hookware.cron._plans
    assert list(names) == [f"/_ah/cron/{__name__}.nothing every day 09:00 UTC"]


def test_annotations_may_mean_what_stands_around_the_function() -> None:
    from tests.cron.postponed import entries

    assert [entry.schedule for entry in entries()] == ["every day 09:00"]


def test_a_retry_without_a_limit_has_the_one_of_app_engine() -> None:
    entry = CronEntry(url="/a", schedule="every day 09:00", retry=TaskRetryOptions(min_backoff_seconds=1))
    assert entry.run_retry == TaskRetryOptions(min_backoff_seconds=1, task_retry_limit=5)
    none = CronEntry(url="/a", schedule="every day 09:00", retry=TaskRetryOptions(task_retry_limit=0))
    assert none.run_retry is none.retry
