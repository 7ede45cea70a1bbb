"""How a handler is called: a plain function in a thread, an async one on the event loop."""

from collections.abc import Awaitable, Callable

import anyio.to_thread

from hookware.unit_of_work import UnitOfWork, current_unit


async def call(
    function: Callable[[], object],
    *,
    is_async: bool,
    wants_session: bool = False,
    succeed: Callable[[], None] | None = None,
) -> object:
    """Call a plain function in a thread and an async one here; give what it returns, awaited where it must be.

    `succeed` says that its task is done, which it is if it returns nothing: what it wrote may be committed at once.
    """
    unit = current_unit.get()
    if not is_async:
        limiter = None if unit is None else unit.outbox.handler_limiter
        (result,) = await anyio.to_thread.run_sync(_called, function, unit, succeed, limiter=limiter)
    else:
        if unit is not None and wants_session:
            await unit.open_own_session()
        result = function()
    return await result if isinstance(result, Awaitable) else result


def _called(
    function: Callable[[], object], unit: UnitOfWork | None, succeed: Callable[[], None] | None
) -> list[object]:
    # A plain function may wrap an async one, as a decorator does; trio wants its coroutine out of sight.
    result = function()
    if result is None and unit is not None and succeed is not None:
        succeed()
        unit.commit_here()
    return [result]
