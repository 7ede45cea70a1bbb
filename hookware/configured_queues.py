"""The queues that a Hookware is configured with."""

from collections.abc import Iterable

from hookware.arguments import checked_queue_name
from hookware.core.queue import QueueSettings
from hookware.core.retry import RetryOptions
from hookware.errors import ConfigurationError
from hookware.queue import Queue
from hookware.queue_settings import check_settings


def queues_by_name(queues: object) -> dict[str, QueueSettings]:
    """Give the settings of queues by their names, as `queues=` of Hookware lists them.

    Raises:
        ConfigurationError: something else is listed, a queue twice, or with settings that contradict each other.
    """
    by_name: dict[str, QueueSettings] = {}
    for given in queues if isinstance(queues, Iterable) else [queues]:
        settings = given.settings if isinstance(given, Queue) else given
        if not isinstance(settings, QueueSettings) or not isinstance(settings.retry, RetryOptions):
            raise ConfigurationError(
                'queues= takes a list of QueueSettings(name="mail", retry=TaskRetryOptions(...)), or of '
                f'Queue("mail", retry_parameters=...), or the path of a queue.yaml, or what it would say as a mapping; '
                f"got {given!r}"
            )
        if settings.name in by_name:
            raise ConfigurationError(f"the queue {settings.name!r} is set twice in queues=: leave one out")
        check_settings(settings)
        by_name[checked_queue_name(settings.name)] = settings
    return by_name


def refuses_unknown(unknown_queues: object, has_queues: bool) -> bool:
    """Say whether tasks for unknown queues are refused; raise ConfigurationError if the option says neither."""
    match unknown_queues:
        case None:
            return has_queues
        case "allow" | "refuse":
            return unknown_queues == "refuse"
        case other:
            raise ConfigurationError(f'unknown_queues must be "allow", "refuse" or None, got {other!r}')
