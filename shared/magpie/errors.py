"""Every error that Magpie raises on purpose, drawn once.

Each class says when it happens and carries its gRPC status, which every transport uses (`rpc.status`).
The message is for the person who reads it: it names the field or the thing, and the fix.
"""

from __future__ import annotations

from typing import ClassVar


class MagpieError(Exception):
    """Base of all. `retryable` says whether the same request can succeed later without a change."""

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = True


class InvalidArgument(MagpieError):
    """The request is wrong in itself: a field out of range, a picture that does not decode."""

    code = "INVALID_ARGUMENT"
    retryable = False

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class FilterSyntax(InvalidArgument):
    """A filter does not parse. `position` is the offset of the offending character, from 0."""

    def __init__(self, text: str, position: int, problem: str, field: str = "filter") -> None:
        before, after = text[max(0, position - 40) : position], text[position : position + 40]
        super().__init__(field, f"{problem} at position {position}: {before}>>>{after}")
        self.position = position


class FilterMismatch(FilterSyntax):
    """A filter parses, but what it names does not exist in this customer's catalogue, or has another type."""


class UndecodableImage(InvalidArgument):
    """The bytes are no picture that Magpie reads: truncated, animated, too large, another format."""

    def __init__(self, problem: str, field: str = "image") -> None:
        super().__init__(field, problem)


class Unauthenticated(MagpieError):
    """No API key, or one that belongs to no customer."""

    code = "UNAUTHENTICATED"
    retryable = False


class NotFound(MagpieError):
    """The named thing does not exist for this customer."""

    code = "NOT_FOUND"
    retryable = False


class FailedPrecondition(MagpieError):
    """The request is right but the state forbids it: a bundle that does not match its card."""

    code = "FAILED_PRECONDITION"
    retryable = False


class Aborted(MagpieError):
    """Someone else changed the same thing first: read it again, then decide anew."""

    code = "ABORTED"
    retryable = False


class Unavailable(MagpieError):
    """Something Magpie needs (Redis, S3, another function) does not answer now. Try again."""

    code = "UNAVAILABLE"


class DeadlineExceeded(MagpieError):
    """The caller's deadline passed before the answer was ready."""

    code = "DEADLINE_EXCEEDED"


class Unimplemented(MagpieError):
    """No servicer has the method that was called."""

    code = "UNIMPLEMENTED"
    retryable = False
