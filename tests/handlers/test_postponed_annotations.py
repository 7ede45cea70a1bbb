"""Handlers under `from __future__ import annotations`: what an annotation says is looked up, also inside a function."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from sqlmodel import Session

from hookware import TaskContext, TaskRouter
from hookware.errors import ConfigurationError
from tests.stage import Stage, Tally


class Outer(BaseModel):
    count: int


async def test_annotations_are_text_and_mean_the_same(stage: Stage) -> None:
    class Inner(BaseModel):
        key: str

    attempts: list[int] = []

    @stage.task_handler("/worker")
    def worker(session: Session, outer: Outer, inner: Inner, task: TaskContext) -> None:
        attempts.append(task.attempt)  # a closure
        session.add(Tally(key=inner.key, count=outer.count))

    async with stage.running():
        worker.add(Outer(count=2), Inner(key="x"))
        await stage.settled()
    assert attempts == [1]
    assert stage.tally() == {"x": 2}


def test_an_annotation_that_means_nothing_is_refused_by_name() -> None:
    def worker(key: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is what is tried

    with pytest.raises(ConfigurationError, match=r"worker.*Nowhere"):
        TaskRouter().task_handler("/worker")(worker)
