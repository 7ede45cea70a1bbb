"""`hookware cron`: the entries of an app; and a schedule explained, without any."""

import json
import re

from tests.cli.shell import Shell, invoke, refusal

REPORT = "/report every day 09:00 Europe/Berlin"


def test_the_entries_of_an_app(app: str) -> None:
    head, report, *others = invoke("cron", "list", "--app", app).stdout.splitlines()
    assert head.split() == ["URL", "SCHEDULE", "TIMEZONE", "NEXT", "LAST", "STATE", "DESCRIPTION"]
    assert report.startswith("/report  every day 09:00")
    assert report.endswith("the daily one")
    assert len(others) == 2


def test_the_next_times_of_an_entry(app: str) -> None:
    lines = invoke("cron", "next", "/report", "-n", "3", "--app", app).stdout.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d 0[78]:00:00 UTC", line) for line in lines)


def test_pause_resume_and_run(shell: Shell, app: str) -> None:
    assert invoke("cron", "pause", REPORT, "--app", app).stdout == f"{REPORT} is paused.\n"
    states = [
        json.loads(line)["is_paused"] for line in invoke("cron", "list", "--app", app, "--json").stdout.splitlines()
    ]
    assert states == [True, False, False]
    assert invoke("cron", "resume", "/report", "--app", app).exit_code == 0
    task_id = int(invoke("cron", "run", "/report", "--app", app).stdout)
    assert shell.stage.rows("SELECT id, url, queue_name FROM hookware_task") == [(task_id, "/report", "__cron")]


def test_an_entry_that_is_not_there_or_not_the_only_one(app: str) -> None:
    line = refusal(invoke("cron", "run", "/nothing", "--app", app), 4)
    assert line.startswith("there is no cron entry '/nothing'; there are: ")
    assert REPORT in line
    line = refusal(invoke("cron", "run", "/twice", "--app", app), 2)
    assert "'/twice every 5 minutes UTC'" in line
    assert "'/twice every 7 minutes UTC'" in line


def test_a_schedule_is_explained() -> None:
    lines = invoke("cron", "explain", "every 5 minutes synchronized", "-n", "2").stdout.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"[\d-]+ \d\d:\d[05]:00 UTC", line) for line in lines)
    line = refusal(invoke("cron", "explain", "now and then"), 2)
    assert "now and then" in line
    assert "Nowhere" in refusal(invoke("cron", "explain", "every day 09:00", "--timezone", "Nowhere"), 2)
    (time,) = map(json.loads, invoke("cron", "explain", "*/5 * * * *", "-n", "1", "--json").stdout.splitlines())
    assert time["schedule"] == "*/5 * * * *"
