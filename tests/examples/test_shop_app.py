"""The app of *Test your tasks* is the one whose tests that page shows, and runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "how-to" / "test-your-tasks.md").read_text()
    found = re.search(r'```python title="shop.py"\n(.*?)```', page, re.DOTALL)
    assert found is not None
    example = (ROOT / "examples" / "shop_app" / "__init__.py").read_text()
    assert example.partition('"""\n\n')[2] == found[1]
