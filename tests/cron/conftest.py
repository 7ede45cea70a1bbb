"""Schedulers on a database of the test's own."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.cron.clockwork import Post
from tests.databases import Database

MakePost = Callable[..., Post]


@pytest.fixture
async def make_post(database: Database) -> AsyncIterator[MakePost]:
    """Make processes with the kind of engine that the test is marked with."""
    look, made = database.look(), list[Post]()

    def make(*entries: object, **options: object) -> Post:
        made.append(Post(database.user_engine(), look, *entries, **options))  # type: ignore[arg-type]  # as Post takes
        return made[-1]

    yield make
    look.close()
    for post in made:
        await post.outbox.close()
        await post.outbox._dispose_engine()
