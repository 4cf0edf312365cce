from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from magpie.errors import InvalidArgument
from magpie.index.vectors import vectors_of
from magpie.v1.image_pb2 import EmbeddedObject, Vector


@given(arrays(np.float32, st.integers(1, 9), elements=st.floats(-1, 1, width=16)).filter(np.any))
def test_unit_vectors_come_out_as_they_went_in(values: np.ndarray) -> None:
    unit = (values / np.linalg.norm(values)).astype("<f4")
    embedded = EmbeddedObject(vectors=[Vector(space="identity", values=unit.tobytes())])
    assert np.array_equal(vectors_of(embedded, "x")["identity"], unit)


@pytest.mark.parametrize(
    ("vectors", "field"),
    [
        ([], "x.vectors: "),
        ([("identity", b"")], "x.vectors[0].values: "),
        ([("identity", bytes(7))], "x.vectors[0].values: "),
        ([("identity", np.array([1, 1], np.float32).tobytes())], "x.vectors[0].values: "),
        ([("identity", np.array([np.nan, 1], np.float32).tobytes())], "x.vectors[0].values: "),
        ([("identity", np.array([np.inf, 1], np.float32).tobytes())], "x.vectors[0].values: "),
        ([("", np.array([1], np.float32).tobytes())], "x.vectors[0].space: "),
        ([("a", np.array([1], np.float32).tobytes())] * 2, "x.vectors[1].space: "),
    ],
)
def test_bad_vectors_are_named(vectors: list[tuple[str, bytes]], field: str) -> None:
    embedded = EmbeddedObject(vectors=[Vector(space=space, values=values) for space, values in vectors])
    with pytest.raises(InvalidArgument) as error:
        vectors_of(embedded, "x")
    assert str(error.value).startswith(field)
