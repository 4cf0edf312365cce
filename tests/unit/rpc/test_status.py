"""Errors to statuses and back."""

from __future__ import annotations

import grpc
import pytest

from magpie import errors
from magpie.rpc.status import CallFailed, call_failed, errors_from_rpc, status_code

OURS = [
    errors.InvalidArgument("box.x1", "must be greater than x0: got 0.2"),
    errors.Unauthenticated("who?"),
    errors.NotFound("gone: for good"),
    errors.FailedPrecondition("not so"),
    errors.Aborted("too late"),
    errors.Unavailable("away"),
    errors.DeadlineExceeded("slow"),
    errors.Unimplemented("later"),
    errors.MagpieError("a bug"),
]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_it_went(error: errors.MagpieError) -> None:
    with pytest.raises(errors.MagpieError) as back, errors_from_rpc():
        raise call_failed(error)
    assert type(back.value) is type(error)
    assert str(back.value) == str(error)
    assert back.value.retryable == error.retryable


def test_special_cases_come_back_as_what_they_are_a_case_of() -> None:
    for error in (errors.FilterSyntax("a <", 3, "expected a value"), errors.UndecodableImage("is cut off")):
        with pytest.raises(errors.InvalidArgument) as back, errors_from_rpc():
            raise call_failed(error)
        assert str(back.value) == str(error)
        assert back.value.field == error.field


def test_every_code_is_a_status_of_grpc() -> None:
    for error in OURS:
        assert status_code(error).name == error.code
        failed = call_failed(error)
        assert (failed.code(), failed.details()) == (status_code(error), str(error))


def test_a_status_that_is_none_of_ours_is_a_magpie_error() -> None:
    with pytest.raises(errors.MagpieError, match="too much") as back, errors_from_rpc():
        raise CallFailed(grpc.StatusCode.RESOURCE_EXHAUSTED.name, "too much")
    assert type(back.value) is errors.MagpieError


def test_other_exceptions_pass() -> None:
    with pytest.raises(KeyError), errors_from_rpc():
        raise KeyError("x")
