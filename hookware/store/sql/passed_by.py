"""Says it when tasks are added where hookware does not see the request that they belong to."""

from hookware.env import in_event_loop_or_its_thread, in_nameless_pool
from hookware.log import log_of
from hookware.store.sql.outbox import Outbox

_logger = log_of()


def complain_if_bypassed(outbox: Outbox) -> None:
    """Say it loudly, once, if tasks are added in a server whose requests do not pass through Hookware."""
    if not outbox.seen and outbox.config.dispatch and in_event_loop_or_its_thread() and outbox.says_first("bypassed"):
        _logger.error(
            "a task was added, but neither a request nor the lifespan has passed through Hookware: the server "
            "seems to run the app that it wraps. Serve the wrapped one, or use app.add_middleware(Hookware, ...). "
            "Until then tasks are not part of the request's transaction, and nobody dispatches them here"
        )


def complain_if_astray(outbox: Outbox) -> None:
    """Warn, once, if a request's code seems to add a task where its request is not known."""
    if outbox.under_way_count > 0 and in_nameless_pool():
        outbox.warn_once(
            "astray",
            "a task was added in a pool's thread that does not know its request, as loop.run_in_executor and "
            "executor.submit start it: it was stored at once, whatever the request's transaction does. Pass "
            "session=, or run the function by asyncio.to_thread, or by contextvars.copy_context().run in the pool. "
            "If no request is meant, say so: transactional=False",
        )
