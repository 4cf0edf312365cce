"""What travels with a call."""

from __future__ import annotations

import time

import pytest

from magpie.errors import Unauthenticated
from magpie.rpc.context import CallContext


def test_names_are_lower_case_and_binary_values_are_left_out() -> None:
    context = CallContext.of_call([("Magpie-Customer", "shop"), ("grpc-trace-bin", b"\x00")])
    assert context.customer == "shop"
    assert dict(context.metadata) == {"magpie-customer": "shop"}


def test_a_customer_found_by_key_wins_over_the_metadata() -> None:
    assert CallContext.of_call([("magpie-customer", "intruder")], customer="shop").customer == "shop"
    assert CallContext.of_call([("magpie-customer", "intruder")], customer="").customer == ""


def test_our_own_trace_id_wins_over_foreign_ones() -> None:
    metadata = [("traceparent", "c"), ("x-request-id", "b"), ("magpie-trace-id", "a")]
    assert [CallContext.of_call(metadata[:n]).trace_id for n in (3, 2, 1)] == ["a", "b", "c"]
    assert len(CallContext.of_call([("x-request-id", "")]).trace_id) == 32


def test_time_runs() -> None:
    context = CallContext.of_call([], timeout=0.05)
    first = context.remaining()
    assert first is not None
    assert 0 < first <= 0.05
    assert not context.expired()
    time.sleep(0.06)
    assert context.remaining() == 0
    assert context.expired()


def test_without_a_deadline_time_does_not_matter() -> None:
    context = CallContext.of_call([])
    assert context.remaining() is None
    assert not context.expired()


def test_the_next_call_is_on_behalf_of_the_same_customer_and_trace() -> None:
    context = CallContext(customer="shop", trace_id="t", metadata={"x-api-key": "secret"})
    again = CallContext.of_call(context.outgoing())
    assert (again.customer, again.trace_id) == ("shop", "t")
    assert "secret" not in str(context.outgoing())


def test_a_customer_can_be_required() -> None:
    assert CallContext(customer="shop").require_customer() == "shop"
    with pytest.raises(Unauthenticated, match="x-api-key"):
        CallContext().require_customer()
