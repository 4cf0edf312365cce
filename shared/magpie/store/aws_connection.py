"""AWS: the one place where botocore's errors become Magpie's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from botocore.exceptions import ClientError

from magpie.errors import Aborted, FailedPrecondition, MagpieError, NotFound, Unavailable

# HEAD answers have no body, so botocore puts the status in place of the code.
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_LOST_RACE = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_MISSING_RESOURCE = frozenset(
    {
        "NoSuchBucket",
        "AWS.SimpleQueueService.NonExistentQueue",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)
_SLOW_DOWN = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "RequestTimeout",
        "RequestLimitExceeded",
        "TooManyRequestsException",
    }
)
_AWAY = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)


@contextmanager
def aws_answers(what: str) -> Iterator[None]:
    """Raises Magpie's errors in place of botocore's. `what` the call is about opens the message.

    NotFound for a missing S3 object, Aborted for a conditional write that lost its race, FailedPrecondition
    for a missing bucket, queue or function, Unavailable where a retry can cure it, MagpieError (INTERNAL) for
    what AWS refuses otherwise.
    """
    try:
        yield
    except _AWAY as error:
        raise Unavailable(f"{what}: AWS does not answer, try again in some seconds: {error}") from error
    except ClientError as error:
        code = str(error.response["Error"].get("Code", ""))
        status = int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))
        if code in _MISSING:
            raise NotFound(f"{what}: there is none") from error
        if code in _LOST_RACE:
            raise Aborted(f"{what}: was changed meanwhile, read it again") from error
        if code in _MISSING_RESOURCE:
            raise FailedPrecondition(f"{what}: {error}") from error
        if code in _SLOW_DOWN or status >= 500:
            raise Unavailable(f"{what}: AWS cannot answer now, try again in some seconds: {error}") from error
        raise MagpieError(f"{what}: AWS refuses: {error}") from error
