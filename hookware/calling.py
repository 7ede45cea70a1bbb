"""How a handler is called: a plain function in a thread, an async one on the event loop."""

from collections.abc import Awaitable, Callable

import anyio.to_thread

from hookware.unit_of_work import UnitOfWork, current_unit


async def call(
    function: Callable[[], object], *, is_async: bool, wants_session: bool = False, ends_task: bool = False
) -> object:
    """Call a plain function in a thread and an async one here; give what it returns, awaited where it must be.

    `ends_task`: if it returns nothing, its task is done, and what it wrote may be committed at once.
    """
    unit = current_unit.get()
    if not is_async:
        limiter = None if unit is None else unit.outbox.handler_limiter
        ending = unit if ends_task else None
        (result,) = await anyio.to_thread.run_sync(_called, function, ending, limiter=limiter)
    else:
        if unit is not None and wants_session:
            await unit.open_own_session()
        result = function()
    return await result if isinstance(result, Awaitable) else result


def _called(function: Callable[[], object], ending: UnitOfWork | None) -> list[object]:
    # A plain function may wrap an async one, as a decorator does; trio wants its coroutine out of sight.
    result = function()
    if result is None and ending is not None:
        ending.commit_here()
    return [result]
