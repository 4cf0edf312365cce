"""AWS for training: clients by boto3's own settings, and botocore's errors as Magpie's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from magpie.errors import FailedPrecondition, MagpieError, NotFound, Unavailable

TRANSFERS_AT_ONCE = 16  # a data set is many small files: latency, not bandwidth, is what they cost
_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_NO_CREDENTIALS = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)
_AWAY = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError)


def client(service: str) -> Any:
    """A client with the credentials, region and endpoint that boto3 finds. Raises FailedPrecondition."""
    with answers(service):
        return boto3.client(
            service,
            config=Config(
                retries={"mode": "standard", "max_attempts": 8}, max_pool_connections=TRANSFERS_AT_ONCE
            ),
        )


@contextmanager
def answers(what: str) -> Iterator[None]:
    """Raises Magpie's errors in place of botocore's. `what` the call is about opens the message.

    FailedPrecondition without credentials, region or bucket, NotFound for a missing object, Unavailable where
    a retry can cure it, MagpieError for what AWS refuses otherwise.
    """
    try:
        yield
    except _NO_CREDENTIALS as error:
        raise FailedPrecondition(
            f"{what}: no AWS credentials: set AWS_PROFILE, or `aws configure`"
        ) from error
    except exceptions.NoRegionError as error:
        raise FailedPrecondition(f"{what}: no AWS region: set AWS_REGION, or `aws configure`") from error
    except _AWAY as error:
        raise Unavailable(f"{what}: AWS does not answer: {error}") from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _MISSING:
            raise NotFound(f"{what}: there is none") from error
        if code == "NoSuchBucket":
            raise FailedPrecondition(f"{what}: there is no such bucket") from error
        if (
            "Throttl" in code
            or code in ("SlowDown", "RequestTimeout", "TooManyRequestsException")
            or status >= 500
        ):
            raise Unavailable(f"{what}: AWS cannot answer now: {error}") from error
        raise MagpieError(f"{what}: AWS refuses: {error}") from error
    except BotoCoreError as error:
        raise MagpieError(f"{what}: {error}") from error
