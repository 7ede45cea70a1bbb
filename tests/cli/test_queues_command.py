"""`hookware queues` and `hookware status`: what they show is what is there, and what they change holds."""

import json

from hookware.core.lifecycle import State
from tests.cli.shell import Shell, invoke
from tests.databases import EVERY_DATABASE


@EVERY_DATABASE
def test_the_list_has_the_counts_of_each_queue(shell: Shell) -> None:
    assert shell.run("queues", "list").exit_code == 4
    shell.world.put(queue_name="mail", count=3, ago=100)
    shell.world.put(queue_name="mail", ago=-100)
    shell.world.put(State.DEAD, queue_name="mail", count=2)
    shell.world.put(State.LEASED, queue_name="sms")
    _head, mail, sms = shell.does("queues", "list").splitlines()
    assert mail.split()[:5] == ["mail", "3", "1", "0", "2"]
    assert sms.split()[:5] == ["sms", "0", "0", "1", "0"]
    one, two = shell.json("queues", "list")
    assert (one["name"], one["due"], one["scheduled"], one["dead"], two["running"]) == ("mail", 3, 1, 2, 1)


@EVERY_DATABASE
def test_pause_and_resume(shell: Shell) -> None:
    shell.world.put(queue_name="mail")
    assert shell.does("queues", "pause", "mail") == "The queue mail is paused.\n"
    (queue,) = shell.json("queues", "show", "mail")
    assert (queue["paused"], queue["paused_by"].endswith(" on the command line")) == (True, True)
    assert "paused " in shell.does("queues", "show", "mail")
    assert shell.does("queues", "resume", "mail") == "The queue mail goes on.\n"
    (queue,) = shell.json("queues", "show", "mail")
    assert (queue["paused"], queue["paused_by"]) == (False, None)


@EVERY_DATABASE
def test_set_changes_what_is_given_and_reset_undoes_it(shell: Shell) -> None:
    shell.world.put(queue_name="mail")
    text = shell.does("queues", "set", "mail", "--rate", "30/m", "--max-concurrent", "10", "--retention", "2h")
    shown = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert (shown["rate"], shown["max_concurrent_requests"], shown["retention_seconds"]) == ("30/m", "10", "7200.0")
    shell.does("queues", "set", "mail", "--max-concurrent", "none")
    (queue,) = shell.json("queues", "show", "mail")
    assert (queue["settings"]["rate"], queue["settings"]["max_concurrent_requests"]) == (0.5, None)
    assert sorted(queue["overrides"]) == ["max_concurrent_requests", "rate", "retention_seconds"]
    shell.refuses("queues", "set", "mail", "--reset", "--rate", "x", status=2)
    assert shell.json("queues", "show", "mail") == [queue]  # nothing is undone by what is refused
    shell.does("queues", "set", "mail", "--reset")
    (queue,) = shell.json("queues", "show", "mail")
    assert (queue["settings"]["rate"], queue["overrides"]) == (None, [])


def test_a_number_that_is_none(shell: Shell) -> None:
    result = shell.run("queues", "set", "default", "--max-concurrent", "ten")
    assert result.exit_code == 2
    assert "'ten' is refused: write 10, or none" in result.stderr


@EVERY_DATABASE
def test_purge_asks_and_deletes_all_but_what_is_completed(shell: Shell) -> None:
    for state in (State.PENDING, State.LEASED, State.DEAD):
        shell.world.put(state, count=2, queue_name="mail")
    kept = [*shell.world.put(State.COMPLETED, queue_name="mail"), *shell.world.put(queue_name="sms")]
    result = shell.run("queues", "purge", "mail", answer="n\n")
    assert result.exit_code == 1
    assert "Delete 6 tasks of the queue mail" in result.stderr
    assert len(shell.states()) == 8
    assert shell.does("queues", "purge", "mail", "--yes") == "The queue mail is purged.\n"
    assert sorted(shell.states()) == sorted(kept)


def test_what_an_app_configures_is_known(shell: Shell, app: str) -> None:
    result = invoke("--app", app, "queues", "list", "--json")
    queues = {queue["name"]: queue["settings"] for queue in map(json.loads, result.stdout.splitlines())}
    assert (queues["mail"]["max_concurrent_requests"], queues["sms"]["rate"]) == (1, 5)
    assert invoke("--app", app, "queues", "pause", "sms").exit_code == 0
    assert shell.json("queues", "show", "sms")[0]["paused"]


@EVERY_DATABASE
def test_status_is_the_whole_installation(shell: Shell) -> None:
    shell.world.put(queue_name="mail", count=3)
    shell.world.put(State.DEAD, count=2)
    shell.world.process(host="web-1", pid=12, running_count=4)
    text = shell.does("status")
    assert " 3 due, 0 running, 2 dead; 1 process runs tasks; " in text.splitlines()[0]
    assert any(line.split()[:2] == ["mail", "3"] for line in text.splitlines())
    assert "web-1 (pid 12)  4     10  1        alive" in text
    (data,) = shell.json("status")
    assert [queue["name"] for queue in data["queues"]] == ["default", "mail"]
    assert data["processes"][0]["host"] == "web-1"
