"""Values as people read them on a terminal, which obeys none of them."""

from hookware.core.amounts import moment, span


def plain(value: object) -> str:
    """Write a value for people; what a terminal would obey, such as an escape sequence, is shown as a blot."""
    text = {None: "-", True: "yes", False: "no"}.get(value) if isinstance(value, bool | None) else str(value)
    text = text or ""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def clean(text: str) -> str:
    """Write lines for people, each as `plain` does."""
    return "\n".join(map(plain, text.split("\n")))


def cut(text: str | None, most: int) -> str:
    """Give the beginning of a text, on one line."""
    line = " ".join((text or "").split())
    return line if len(line) <= most else line[: most - 1] + "…"


def when(at_us: int | None, now_us: int | None = None) -> str:
    """Write a moment, and how far away it is."""
    if at_us is None:
        return "-"
    if now_us is None:
        return moment(at_us)
    away = f"in {span(at_us - now_us)}" if at_us > now_us else f"{span(now_us - at_us)} ago"
    return f"{moment(at_us)} ({away})"
