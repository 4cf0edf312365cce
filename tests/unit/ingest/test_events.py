"""EventBridge envelopes, and the keys that they name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie.errors import InvalidArgument
from magpie.ingest.events import image_uploaded
from magpie.store.upload_key import UploadKey, encoded

SHA256 = "0123456789abcdef" * 4
KEY = f"customers/shop/catalogue/a%2Fb/{SHA256}"

# As AWS's documents show it (userguide/ev-events.html), with our bucket and key.
ENVELOPE: dict[str, Any] = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2021-11-12T00:00:00Z",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::magpie"],
    "detail": {
        "version": "0",
        "bucket": {"name": "magpie"},
        "object": {
            "key": KEY,
            "size": 5,
            "etag": "b1946ac92492d2347c6235b4d2611184",
            "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
            "sequencer": "617f08299329d189",
        },
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": "123456789012",
        "source-ip-address": "1.2.3.4",
        "reason": "PutObject",
    },
}


def changed(**fields: Any) -> dict[str, Any]:
    """The envelope with some fields replaced; `object__key` lies in detail.object, `detail__x` in detail."""
    envelope = copy.deepcopy(ENVELOPE)
    places = {"object": envelope["detail"]["object"], "detail": envelope["detail"]}
    for name, value in fields.items():
        place, _, field = name.partition("__")
        (places[place] if field else envelope)[(field or name).replace("_", "-")] = value
    return envelope


def test_an_envelope_becomes_an_event() -> None:
    image = image_uploaded(ENVELOPE).image
    assert (image.customer, image.product_id, image.sha256) == ("shop", "a/b", SHA256)
    assert image.upload_key == KEY
    assert image.trace_id == ENVELOPE["id"]
    assert image.event_id


def test_a_redelivery_is_the_same_event() -> None:
    again = changed(id="another", time="2021-11-12T00:00:09Z")
    assert image_uploaded(again).image.event_id == image_uploaded(ENVELOPE).image.event_id


@pytest.mark.parametrize(
    "other",
    [
        {"object__sequencer": "617f08299329d18a"},
        {"object__version_id": "other"},
        {"object__etag": "other"},
        {"detail__request_id": "other"},  # the local S3 gives all its uploads one sequencer
        {"object__key": KEY.replace("a%2Fb", "c")},
    ],
)
def test_another_upload_is_another_event(other: dict[str, Any]) -> None:
    assert image_uploaded(changed(**other)).image.event_id != image_uploaded(ENVELOPE).image.event_id


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"Records": []},
        changed(source="my.app"),
        changed(detail_type="Object Deleted"),
        changed(detail=None),
        changed(detail={}),
        changed(detail={"object": "x"}),
        changed(detail={"object": None}),
        changed(detail=[]),
        changed(object__key=None),
        changed(object__key=5),
        changed(object__key=f"customers/shop/queries/{SHA256}"),
        changed(object__key="customers/shop/ranking/current.json"),
        changed(object__key=KEY + ".tmp"),
    ],
    ids=repr,
)
def test_what_is_no_picture_of_a_product_is_refused(envelope: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        image_uploaded(envelope)


@given(
    customer=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    product_id=st.text(st.characters(codec="utf-8"), max_size=128),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)
def test_any_product_id_survives_the_key(customer: str, product_id: str, sha256: str) -> None:
    key = UploadKey(customer, product_id, sha256)
    assert UploadKey.parse(str(key)) == key
    assert str(key).isascii()
    assert str(key).count("/") == (4 if product_id else 3)


def test_no_product_id_steps_out_of_its_folder() -> None:
    assert [encoded(product_id) for product_id in (".", "..", "...", "a.b", "/")] == [
        "%2E",
        "%2E%2E",
        "%2E%2E%2E",
        "a.b",
        "%2F",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        KEY + "\n",
        KEY.upper(),
        f"/{KEY}",
        KEY.replace("%2F", "/"),
        KEY.replace("%2F", "%2f"),  # two keys must never name one image
        KEY.replace("a%2F", "%61%2F"),
        KEY.replace("a%2Fb", ".."),
        KEY.replace("a%2Fb", ""),
        KEY.replace("a%2Fb", "%FF"),
        KEY.replace("shop", "Shop"),
        KEY[:-1],
    ],
)
def test_only_our_own_keys_parse(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^upload_key: "):
        UploadKey.parse(text)
