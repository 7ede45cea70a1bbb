"""Tells language models what the documentation has: `python scripts/llms.py` writes docs/llms.txt, from the navigation.

As a hook of mkdocs it also puts into the built site llms-full.txt, which is all pages in one, and each page as Markdown
at the place that llms.txt names. What proves a page, unseen by its readers, is left out, and the directives of the
reference become signatures and docstrings.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

_PROOF = re.compile(r"^<!-- (?:run\n.*?|not run: [^\n]+)-->\n+", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^::: (\S+)\n(?: {4}.*\n|\n(?= {4}))*", re.MULTILINE)


def listing() -> str:
    """Give llms.txt: what this is, and each page with its title and for whom it is."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    sections = [f"# {config['site_name']}\n", f"> {config['site_description']}\n", _after_the_title(DOCS / "index.md")]
    for title, path, depth in pages(config["nav"]):
        if path is None:
            sections.append(f"\n{'#' * (depth + 2)} {title}\n")
        elif path != "index.md":
            reader = _reader(DOCS / path)
            sections.append(f"- [{title}]({path}){': ' + reader if reader else ''}")
    sections.append("\n## Optional\n\n- [All pages in one](llms-full.txt)")
    return "\n".join(sections) + "\n"


def pages(nav: list[dict[str, Any]], depth: int = 0) -> Iterator[tuple[str, str | None, int]]:
    """Give titles and paths in the order of the navigation; a section has no path."""
    for entry in nav:
        for title, below in entry.items():
            if isinstance(below, str):
                yield title, below, depth
            else:
                yield title, None, depth
                yield from pages(below, depth + 1)


def plain(page: Path) -> str:
    """Give a page as text that needs no other program to be read."""
    return _DIRECTIVE.sub(lambda found: _described(found[1]), _PROOF.sub("", page.read_text()))


def full() -> str:
    """Give llms-full.txt."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    texts = [f"<!-- {path} -->\n\n{plain(DOCS / path)}" for _, path, _ in pages(nav) if path is not None]
    return "\n".join(texts)


def on_post_build(config: Any, **_others: object) -> None:
    """Put all of it into the site that mkdocs has built."""
    site = Path(config["site_dir"])
    (site / "llms-full.txt").write_text(full())
    for page in sorted(DOCS.rglob("*.md")):
        (site / page.relative_to(DOCS)).parent.mkdir(parents=True, exist_ok=True)
        (site / page.relative_to(DOCS)).write_text(plain(page))


def _described(name: str) -> str:
    value = _found(name)
    kind = "class " if inspect.isclass(value) else ""
    text = f"## {name}\n\n```python\n{kind}{name}{_signature(value)}\n```\n\n{inspect.getdoc(value) or ''}\n"
    if inspect.isclass(value):
        for method, function in vars(value).items():
            if inspect.isfunction(function) and not method.startswith("_") and inspect.getdoc(function):
                text += f"\n`{method}{inspect.signature(function)}`\n\n{inspect.getdoc(function)}\n"
    return text


def _signature(value: object) -> str:
    try:
        return str(inspect.signature(value)) if callable(value) else ""
    except ValueError:  # an exception or a dictionary, whose calls are those of the built-in
        return ""


def _found(name: str) -> Any:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            value = getattr(value, part)
        return value
    raise LookupError(name)


def _after_the_title(page: Path) -> str:
    """Give what stands between a page's title and its first code, on one line for each paragraph."""
    return _PROOF.sub("", page.read_text()).split("```", 1)[0].partition("\n")[2].strip()


def _reader(page: Path) -> str:
    """Give the sentence that says for whom a page is, without its links, which lead from there."""
    found = re.search(r"^For (?:you, )?(.+?)(?:[.:]$|[.:] )", page.read_text(), re.MULTILINE)
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", found[1]) if found else ""


if __name__ == "__main__":
    (DOCS / "llms.txt").write_text(listing())
