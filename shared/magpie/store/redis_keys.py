"""How keys and fields are named in Redis.

The braces keep all keys of one customer on one node of a cluster. No customer's name has upper-case letters,
so what belongs to none has a hash tag in upper case.
"""

from __future__ import annotations


def customer_key(customer: str, name: str) -> str:
    """`name` among one customer's keys."""
    return f"magpie:{{{customer}}}:{name}"


def customer_of(key: bytes) -> str:
    """Whose key it is."""
    return key.decode().split("{", 1)[1].split("}", 1)[0]


def image_field(product_id: str, sha256: str) -> bytes:
    """An image in the hashes of a catalogue: `product id NUL sha256`."""
    return f"{product_id}\0{sha256}".encode()


def image_parts(field: bytes) -> tuple[str, str]:
    """The inverse: product id and SHA-256."""
    product_id, sha256 = field.decode().rsplit("\0", 1)
    return product_id, sha256
