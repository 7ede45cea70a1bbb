"""What an app has raised, as a delivery judges it."""

import anyio

from hookware.errors import PermanentTaskFailure


def is_our_cancellation(error: BaseException) -> bool:
    """Tell a cancellation of this task from a CancelledError that the handler raised by itself."""
    return is_cancellation(error) and anyio.current_effective_deadline() == float("-inf")


def is_cancellation(error: BaseException | None) -> bool:
    """Say whether it is a cancellation, or several and nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(anyio.get_cancelled_exc_class())[1] is None
    return isinstance(error, anyio.get_cancelled_exc_class())


def is_permanent(error: BaseException | None) -> bool:
    """Say whether it says that no other attempt will succeed."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(PermanentTaskFailure) is not None
    return isinstance(error, PermanentTaskFailure)
