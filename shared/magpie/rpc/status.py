"""The one table between Magpie's errors and gRPC's status codes, in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from magpie import errors

_BY_CODE: dict[str, type[errors.MagpieError]] = {
    error.code: error
    for error in (
        errors.Unauthenticated,
        errors.NotFound,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.Unimplemented,
        errors.MagpieError,
    )
}


RETRY_AFTER_SECONDS = 1  # what callers are advised when something is UNAVAILABLE
_LONGEST = 600  # characters, each up to 12 bytes in a header


class CallFailed(grpc.RpcError):
    """What callers of our channels catch: an RpcError with `code()` and `details()`, as grpcio raises it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self._code = grpc.StatusCode[code]
        self._message = message

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """The message for people."""
        return self._message


def details(error: errors.MagpieError) -> str:
    """The message as every transport sends it: cut, since in native gRPC it is a header of at most 8 KB."""
    text = str(error)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def call_failed(error: errors.MagpieError) -> CallFailed:
    """A servicer's error as its caller sees it."""
    return CallFailed(error.code, details(error))


def status_code(error: errors.MagpieError) -> grpc.StatusCode:
    """The status that stands for an error."""
    return grpc.StatusCode[error.code]


@contextmanager
def errors_from_rpc() -> Iterator[None]:
    """Raises the MagpieError that stands for a stub's RpcError."""
    try:
        yield
    except grpc.RpcError as failed:
        code, message = failed.code().name, failed.details() or ""
        if code == errors.InvalidArgument.code:
            field, _, problem = message.partition(": ")
            raise errors.InvalidArgument(field, problem) from failed
        raise _BY_CODE.get(code, errors.MagpieError)(message) from failed
