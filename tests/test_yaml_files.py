"""queue.yaml and cron.yaml as files, text and mappings, and where they are wrong."""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookware.core.cron import CronEntry
from hookware.core.queue import QueueSettings
from hookware.core.queue_yaml import QueueFile, parse_rate
from hookware.errors import ConfigurationError
from hookware.yaml_files import load_cron, load_queues, parse_cron, parse_queues

ROOT = Path(__file__).parent.parent
VECTORS = json.loads((ROOT / "tests" / "vectors" / "task_vectors.json").read_text())
CRON_VECTORS = json.loads((ROOT / "tests" / "vectors" / "cron_vectors.json").read_text())

QUEUES = """\
# the queues of an app
total_storage_limit: 120M
queue:
- name: mail
  rate: 5/s
  bucket_size: 10
- name: slow
  retry_parameters:
    task_retry_limit: 7
"""
CRON = """\
cron:
- url: /summary
  schedule: every monday 09:00
  timezone: Europe/Berlin
- url: /poll
  schedule: "*/5 * * * *"
"""


def as_given(settings: QueueSettings, keys: Mapping[str, object]) -> dict[str, object]:
    """Give the settings that a vector names, as it names them."""
    return {key: getattr(settings, key) for key in keys if key not in {"rate", "acl"}}


@pytest.mark.parametrize("vector", VECTORS["queue_yaml"], ids=lambda vector: vector["yaml"][:60])
def test_what_is_accepted_is_what_app_engine_accepts(vector: dict[str, Any]) -> None:
    text = vector["yaml"]
    if "..." in text:  # the vectors shorten long names
        text = f"queue:\n- name: {vector['ok'][0]['name']}\n  rate: 1/s"
    if "raises" in vector:
        with pytest.raises(ConfigurationError, match=r"queue\.yaml, line \d"):
            parse_queues(text)
        return
    found = parse_queues(text).queues
    assert [as_given(each, keys) for each, keys in zip(found, vector["ok"], strict=True)] == [
        {key: value for key, value in each.items() if key not in {"rate", "acl"}} for each in vector["ok"]
    ]
    assert [each.rate for each in found] == [
        parse_rate(each["rate"]) if "rate" in each else None for each in vector["ok"]
    ]


@pytest.mark.parametrize("vector", CRON_VECTORS["errors"], ids=lambda vector: vector["schedule"])
def test_schedules_are_refused_with_their_line(vector: dict[str, Any]) -> None:
    text = f"cron:\n- url: /\n  schedule: {json.dumps(vector['schedule'])}\n"
    if vector["accepted"] or vector["schedule"] == "* * * * *":  # five fields are hookware's second language
        assert len(parse_cron(text)) == 1
    else:
        with pytest.raises(ConfigurationError, match=r"cron\.yaml, line 3: cron\[0\]\.schedule: the (sch|cron)"):
            parse_cron(text)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text("\ufeff" + QUEUES)
    expected = QueueFile(
        queues=(QueueSettings(name="mail", rate=5.0, bucket_size=10), parse_queues(QUEUES).queues[1]),
        total_storage_limit=120 * 2**20,
    )
    assert load_queues(path) == load_queues(str(path)) == parse_queues(QUEUES) == expected
    assert expected.queues[1].retry.task_retry_limit == 7
    path.write_text(CRON)
    assert load_cron(path) == (
        CronEntry(url="/summary", schedule="every monday 09:00", timezone="Europe/Berlin"),
        CronEntry(url="/poll", schedule="*/5 * * * *"),
    )


def test_a_mapping_says_the_same() -> None:
    retry = {"task_retry_limit": 7}
    queues = [{"name": "mail", "rate": "5/s", "bucket_size": 10}, {"name": "slow", "retry_parameters": retry}]
    assert load_queues({"total_storage_limit": "120M", "queue": queues}) == parse_queues(QUEUES)
    entries = load_cron({"cron": [{"url": "/poll", "schedule": "*/5 * * * *"}]})
    assert entries == parse_cron(CRON)[1:]


def test_an_error_of_a_mapping_has_a_place_and_no_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^queue\[1\]\.rate: rate '5' is refused: "):
        load_queues({"queue": [{"name": "a"}, {"name": "b", "rate": "5"}]})
    with pytest.raises(ConfigurationError, match=r"^the key 'queues' is not known|^queues: "):
        load_queues({"queues": []})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queue:\n- name: q\n  rate: 5\n", "line 3: queue[0].rate: rate 5 is refused"),
        ("queue:\n- name: q\n- rate: 5/s\n", "line 3: queue[1]: 'name' is missing"),
        (
            "queue:\n- name: q\n  retry_parameters:\n    foo: 1\n",
            "line 4: queue[0].retry_parameters.foo: the key 'foo'",
        ),
        ("queue:\n- name: q\n  retry_parameters:\n  - 5\n", "line 3: queue[0].retry_parameters: expected keys"),
        ("queue:\n- name: q\n  name: r\n", "line 3: the key 'name' is there twice"),
        ("queue: []\nqueue: []\n", "line 2: the key 'queue' is there twice"),
        ("queue:\n---\nqueue:\n", "line 2: a second document begins"),
        ("queue: &all\n- name: q\n", "line 1: anchors and aliases are not allowed"),
        ("queue:\n- *all\n", "line 2: anchors and aliases are not allowed"),
        ("!!python/object/apply:os.system [ls]", "line 1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("queue: !local x", "line 1: the tag '!local' is not allowed"),
        ("queue: !!seq []", "line 1: the tag 'tag:yaml.org,2002:seq' is not allowed"),
        ("? [a, b]\n: c\n", "line 1: a key must be a word"),
        ("queue: 2024-99-99", "line 1: '2024-99-99' is not a value: month must be in 1..12"),
        ("total_storage_limit: " + "9" * 5000, "line 1"),
        ("\nqueue: [", "line 2: "),
        ("queue:\n\t- x", "line 2: "),
        ("queue: \x00", "queue.yaml: "),
        ("[" * 1000, "line 1: this is nested more than 20 deep"),
        ("a: <<", "line 1: "),
        ("", "queue.yaml is empty"),
        ("# nothing\n", "queue.yaml is empty"),
        ("5", "line 1: expected keys and values, got 5"),
        ("---\n", "expected keys and values, got None"),
    ],
)
def test_an_error_says_where_in_the_file(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_queues(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("queue.yaml")
    assert len(str(caught.value)) < 400


def test_an_unknown_time_zone_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigurationError, match=r"cron\.yaml, line 4: cron\[0\]\.timezone: the time zone 'Mars/Base'"):
        parse_cron("cron:\n- url: /\n  schedule: every day 09:00\n  timezone: Mars/Base\n")


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    levels = [f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]" for n in range(8)]
    with pytest.raises(ConfigurationError, match="anchors and aliases are not allowed"):
        parse_queues("\n".join(["a: &a [x]", *levels]))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: .*give the path of a YAML file"):  # noqa: RUF043 - a pattern
        load_queues(tmp_path / "missing.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_queues(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_cron("a\0b")
    (tmp_path / "latin.yaml").write_bytes(b"queue: \xff")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_queues(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_048_577)
    with pytest.raises(ConfigurationError, match="is refused: it is larger than 1048576 bytes"):
        load_queues(tmp_path / "large.yaml")
    with pytest.raises(TypeError, match="source must be a path or a mapping, got int"):
        load_queues(5)  # type: ignore[arg-type] # what the test is about


@pytest.mark.slow
@given(st.text("queue:\n- name[]{}&*!?|>'\"#5/s", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigurationError):
        parse_queues(text)


@pytest.mark.slow
def test_without_pyyaml_it_says_what_to_install_and_mappings_work() -> None:
    code = """
import sys
sys.modules["yaml"] = None
from hookware.yaml_files import load_queues, parse_queues
assert load_queues({"queue": [{"name": "q"}]}).queues[0].name == "q"
parse_queues("queue:")
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.stderr.endswith('ImportError: YAML files need PyYAML: pip install "hookware[yaml]"\n')
