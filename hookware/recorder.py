"""What is to be kept of attempts, as they end: made here, written by whoever settles them."""

from typing import Final, assert_never

from hookware.attempt import Attempt
from hookware.config import Config
from hookware.core.history import MAX_URL_CHARACTERS, AttemptOutcome, AttemptRecord, shown_headers
from hookware.core.lifecycle import Complete, Decision, Die, Release, Retry
from hookware.core.task import LeasedTask
from hookware.env import Env
from hookware.log import fields_of, log_of

_logger = log_of()

_CUT_SHORT: Final = "the handler was cut short, because its process was about to stop"


class Recorder:
    """Makes the records of one process's attempts.

    Args:
        env: for the time.
        config: which attempts are kept. Where there is a codec, nothing is kept of responses: what they say may be
            what the codec is to hide.
        owner: the process.
    """

    def __init__(self, env: Env, config: Config, owner: str) -> None:
        self._env, self._owner = env, owner
        self._history, self._keeps_responses = config.attempt_history, config.codec is None

    def hold(self, attempt: Attempt) -> None:
        """Let an attempt that its handler's own transaction may complete leave its record there."""
        if self._history == "all":
            attempt.delivery.completion = lambda: self.of(attempt, Complete())

    def of(self, attempt: Attempt, decision: Decision) -> AttemptRecord | None:
        """Give what is to be kept of an attempt that ends now; None: nothing.

        It does not raise: what cannot be told must not keep an attempt from being settled.
        """
        try:
            return self._of(attempt, decision) if self._is_kept(attempt, decision) else None
        except Exception:
            label, fields = attempt.task.label, fields_of(attempt.task)
            _logger.exception("task %s: no record of its attempt could be made", label, extra=fields)
            return None

    def _of(self, attempt: Attempt, decision: Decision) -> AttemptRecord:
        task, answer = attempt.task, attempt.delivery.answer
        shows = answer is not None and self._keeps_responses
        return AttemptRecord(
            task_id=task.id,
            number=task.record_count + 1,
            attempt_count=task.attempt_count,
            fence=task.fence,
            owner=self._owner,
            method=task.method,
            url=task.url[:MAX_URL_CHARACTERS],
            began_us=_moment_us(attempt, attempt.began_at) if attempt.began_at else None,
            ended_us=_moment_us(attempt, self._env.monotonic()),
            outcome=_outcome(decision),
            status=(answer.status or None) if answer is not None else None,
            error=_error(decision),
            response_headers=shown_headers(answer.headers) if answer is not None and shows else (),
            response_text=answer.body.decode("utf-8", "replace") if answer is not None and shows else "",
            response_byte_count=answer.byte_count if answer is not None else 0,
        )

    def _is_kept(self, attempt: Attempt, decision: Decision) -> bool:
        if isinstance(decision, Complete):
            return self._history == "all"
        # What was given back before it began was no attempt.
        return self._history != "off" and not (isinstance(decision, Release) and not attempt.began_at)


def crash_of(task: LeasedTask, decision: Retry | Die) -> AttemptRecord:
    """Give what is to be kept of an attempt whose process is gone, as it is taken back."""
    return AttemptRecord(
        task_id=task.id,
        number=task.record_count + 1,
        attempt_count=task.attempt_count,
        fence=task.fence,
        owner=task.owner,
        method=task.method,
        url=task.url[:MAX_URL_CHARACTERS],
        began_us=task.first_attempt_us if task.attempt_count == 1 else None,
        ended_us=task.claimed_us,  # of a task that is taken back, the database's time
        outcome="crashed",
        error=decision.error,
    )


def _moment_us(attempt: Attempt, monotonic: float) -> int:
    """Give the database's time at a moment of the monotonic clock, carried on from the claim."""
    return attempt.task.claimed_us + int((monotonic - attempt.claimed_at) * 1e6)


def _outcome(decision: Decision) -> AttemptOutcome:
    match decision:
        case Complete():
            return "completed"
        case Release():
            return "given back"
        case Retry():
            return "retry"
        case Die():
            return "dead"
        case _:
            assert_never(decision)


def _error(decision: Decision) -> str | None:
    match decision:
        case Retry(error=error) | Die(error=error):
            return error
        case Release():
            return _CUT_SHORT
        case _:
            return None
