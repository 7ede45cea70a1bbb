"""What is taken for damage, and what is not."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from hookware.store.sql.damage import is_unreadable


def test_only_sqlite_has_text_that_cannot_be_read() -> None:
    error = OperationalError("SELECT", {}, Exception("Could not decode to UTF-8 column 'url' with text 'x'"))
    assert is_unreadable(sqlite.dialect(), error)
    assert not is_unreadable(postgresql.dialect(), error)  # type: ignore[no-untyped-call]  # SQLAlchemy's
