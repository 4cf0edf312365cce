"""Customers of a local system. One is made by the first command that writes for it."""

from __future__ import annotations

from local.client import CallFailed, Client
from local.home import Home
from local.system import System
from magpie.store.customers import Customers
from magpie.store.redis_connection import connect


def known_key(home: Home, customer: str) -> str:
    """The API key of a customer that exists. Raises CallFailed."""
    try:
        return home.key(customer).read_text().strip()
    except FileNotFoundError:
        raise CallFailed(
            "UNAUTHENTICATED",
            f"there is no customer `{customer}` in {home.folder}: make it with its catalogue by "
            f"`magpie index CATALOGUE --customer {customer}`",
        ) from None


def key_of(home: Home, customer: str) -> str:
    """The API key of a customer, who is made if need be, or given a new key if the old one is unknown."""
    key = home.key(customer).read_text().strip() if home.key(customer).exists() else ""
    with connect(System(home).running().redis_url) as redis:
        customers = Customers(redis)
        if not key or customers.customer_of(key) != customer:
            key = customers.create(customer)
            home.write_key(customer, key)
    return key


def reading(home: Home, customer: str, patience: float = 0.0) -> Client:
    """A client of a customer that exists. Raises FailedPrecondition if no system runs, CallFailed."""
    state = System(home).running()
    return Client(state.grpc_address, known_key(home, customer), patience)


def writing(home: Home, customer: str, patience: float = 0.0) -> Client:
    """A client of a customer, who is made if need be. Raises FailedPrecondition if no system runs."""
    state = System(home).running()
    return Client(state.grpc_address, key_of(home, customer), patience)
