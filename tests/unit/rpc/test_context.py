"""Customer, trace id and deadline of a call, and the errors that its caller sees."""

from __future__ import annotations

import inspect

import grpc
import pytest

from magpie import errors
from magpie.rpc.auth import Authenticator
from magpie.rpc.context import CUSTOMER, TRACE_ID, CallContext
from magpie.rpc.status import call_failed, errors_from_rpc, status_code

CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.MagpieError) and not issubclass(error, errors.InvalidArgument)
]


class Keys(dict[str, str]):
    """Customers by their API keys."""

    def customer_of(self, key: str) -> str | None:
        """As magpie.store.customers has it."""
        return self.get(key)


def test_the_metadatas_customer_counts_only_where_no_other_is_given() -> None:
    metadata = [(CUSTOMER.upper(), "claimed")]
    assert CallContext.of_call(metadata).customer == "claimed"
    assert CallContext.of_call(metadata, customer="known").customer == "known"
    assert CallContext.of_call(metadata, customer="").customer == ""
    with pytest.raises(errors.Unauthenticated):
        CallContext.of_call([]).require_customer()


@pytest.mark.parametrize("name", [TRACE_ID, "x-request-id", "traceparent", "X-Amzn-Trace-Id"])
def test_a_trace_id_is_taken_over(name: str) -> None:
    assert CallContext.of_call([(name, "t")]).trace_id == "t"


def test_our_own_trace_id_goes_before_foreign_ones_and_is_made_where_there_is_none() -> None:
    assert CallContext.of_call([("x-request-id", "foreign"), (TRACE_ID, "ours")]).trace_id == "ours"
    made = {CallContext.of_call([]).trace_id for _ in range(3)}
    assert len(made) == 3
    assert "" not in made


def test_an_outgoing_call_is_on_behalf_of_the_same_customer() -> None:
    context = CallContext.of_call([(CUSTOMER, "shop"), (TRACE_ID, "t")])
    again = CallContext.of_call(context.outgoing())
    assert (again.customer, again.trace_id) == ("shop", "t")


def test_a_deadline_passes() -> None:
    assert CallContext().remaining() is None
    assert not CallContext().expired()
    passed = CallContext.of_call([], timeout=-1.0)
    assert passed.remaining() == 0
    assert passed.expired()
    assert not CallContext.of_call([], timeout=60.0).expired()


@pytest.mark.parametrize(
    "metadata",
    [
        {"x-api-key": "k"},
        {"authorization": "Bearer k"},
        {"authorization": "bearer  k "},
        {"x-api-key": "k", "authorization": "Bearer wrong"},
        {"x-api-key": "", "authorization": "Bearer k"},
    ],
    ids=repr,
)
def test_a_key_says_who_calls(metadata: dict[str, str]) -> None:
    assert Authenticator(Keys(k="shop")).customer(metadata) == "shop"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"x-api-key": "wrong", "authorization": "Bearer k"},
        {"authorization": "Basic k"},
        {CUSTOMER: "shop"},
    ],
    ids=repr,
)
def test_nothing_else_does(metadata: dict[str, str]) -> None:
    with pytest.raises(errors.Unauthenticated):
        Authenticator(Keys(k="shop")).customer(metadata)


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_survives_the_way_to_the_caller(error: type[errors.MagpieError]) -> None:
    with pytest.raises(error, match=r"^what: and why$") as caught, errors_from_rpc():
        raise call_failed(error("what: and why"))
    assert type(caught.value) is error
    assert status_code(caught.value) is grpc.StatusCode[error.code]


def test_a_wrong_argument_keeps_its_field() -> None:
    with (
        pytest.raises(errors.InvalidArgument, match=r"^limit: 1: not 2$") as caught,
        errors_from_rpc(),
    ):
        raise call_failed(errors.InvalidArgument("limit", "1: not 2"))
    assert caught.value.field == "limit"
