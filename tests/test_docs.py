"""The documentation is proved: its code runs, its links lead somewhere, and nothing public is missing."""

import inspect
import re
from pathlib import Path

import pytest

import hookware
import hookware.testing
from hookware import errors
from hookware.config import Config
from hookware.core.lifecycle import TRANSITIONS, State
from scripts import llms
from tests.page import run_forked
from tests.postgres import PostgresServer
from tests.running import forked

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
REFERENCE = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))

_MOST_SECONDS = 150  # on a machine that does much else: the longest page takes 4 s of an idle one
_FENCED = re.compile(r"^```.*?^```$|^<!--.*?-->$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"\]\[([^]]+)\]")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def slug(title: str) -> str:
    """Give a heading's anchor, as Markdown's toc extension makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def headings(page: Path) -> set[str]:
    text = _FENCED.sub("", page.read_text())
    return {slug(title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def table(page: Path, title: str) -> list[list[str]]:
    """Give the rows of the first table after a heading, without its head and without the marks of code."""
    after = page.read_text().split(f"# {title}\n", 1)[1]
    rows = re.findall(r"^\|(.+)\|$", after.split("\n#", 1)[0], re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.split("|")] for row in rows[2:]]


@pytest.mark.slow
@pytest.mark.timeout(_MOST_SECONDS + 10)
@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=name_of)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    env = {"PYTHONPATH": str(ROOT)}
    if 'environ["DATABASE_URL"]' in page.read_text():
        server: PostgresServer = request.getfixturevalue("postgres")
        env["DATABASE_URL"] = server.new_schema().render_as_string(hide_password=False)
    folder, log = tmp_path / "folder", tmp_path / "log"
    folder.mkdir()
    process = forked.Process(target=run_forked, args=(page, folder, env, log))
    process.start()
    process.join(_MOST_SECONDS)
    process.kill()
    process.join()
    assert process.exitcode == 0, log.read_text()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_by_a_reference_have_one_and_it_is_used(page: Path) -> None:
    text = _FENCED.sub("", page.read_text())
    assert set(_REFERENCE.findall(text)) == set(re.findall(r"^\[([^]]+)\]: \S+$", text, re.MULTILINE))


@pytest.mark.parametrize("page", [page for page in PAGES if _TEST.search(page.read_text())], ids=name_of)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    def has(path: str, name: str) -> bool:
        return f"def {name}(" in (ROOT / path).read_text()

    assert [named for named in _TEST.findall(page.read_text()) if not has(*named)] == []


def test_llms_txt_lists_the_pages_of_the_navigation() -> None:
    assert (DOCS / "llms.txt").read_text() == llms.listing(), "run `python scripts/llms.py`"


def test_all_pages_in_one_have_the_reference_written_out_and_no_proofs() -> None:
    text = llms.full()
    assert "<!-- run" not in text
    assert not re.search(r"^::: ", text, re.MULTILINE)
    for name in set(hookware.__all__) - {"__version__", "deferred", "taskqueue"}:
        assert re.search(rf"^## hookware\.(\w+\.)*{name}$", text, re.MULTILINE), name


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


@pytest.mark.parametrize("name", sorted({*hookware.__all__, *hookware.testing.__all__} - {"__version__", "Mode"}))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    generated = {*re.findall(r"^::: hookware\.(?:\w+\.)*(\w+)$", REFERENCE, re.MULTILINE)}
    assert name in generated | {"deferred", "taskqueue"}


def test_the_page_of_errors_has_every_error_and_their_tree() -> None:
    page = (DOCS / "reference" / "errors.md").read_text()
    public = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.Error)
    }
    assert set(re.findall(r"^::: hookware\.errors\.(\w+)$", page, re.MULTILINE)) == public
    tree = (errors.__doc__ or "").partition("\n\n")[2].strip()
    assert f"```text\n{tree}\n```" in page
    assert set(re.findall(r"^[│├└─ ]*(\w+)", tree, re.MULTILINE)) == public


def test_the_table_of_transitions_is_the_one_of_the_code() -> None:
    documented = table(DOCS / "reference" / "states.md", "Transitions after an attempt")
    assert documented == [
        [state.name, decision.__name__, " or ".join("row deleted" if s is None else s.name for s in after)]
        for (state, decision), after in TRANSITIONS.items()
    ]


def test_the_table_of_states_is_the_one_of_the_code() -> None:
    documented = table(DOCS / "reference" / "states.md", "States")
    assert [(row[0], row[1]) for row in documented] == [(state.name, str(state.value)) for state in State]


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        ("payload", "max_body_bytes"),
        ("dispatch deadline", "dispatch_deadline_seconds"),
        ("past the deadline, before the slot is given up", "overrun_seconds"),
        ("crashes of the process under one task", "crash_limit"),
        ("tasks at once", "concurrency"),
        ("longest wait before the database is asked", "poll_seconds"),
        ("handlers at shutdown", "drain_seconds"),
    ],
)
def test_a_documented_limit_is_the_default(row: str, setting: str) -> None:
    text = (DOCS / "reference" / "limits.md").read_text()
    [limit] = re.findall(rf"^\| {row} \| (.+) \|$", text, re.MULTILINE)
    assert (f"`{setting}`" in limit) == (setting in inspect.signature(hookware.Hookware).parameters)
    assert float(re.sub(r"[^\d].*", "", limit.replace(",", ""))) == getattr(Config(), setting)
