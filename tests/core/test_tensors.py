"""Arrays survive a round trip byte for byte, and a file that is anything else is refused, never half read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError
from node_anomaly_core.tensors import MAX_HEADER_BYTES, read_tensors, write_tensors

DTYPES = ("float64", "float32", "int64", "int32", "int16", "int8", "uint8", "bool")

# Written by the safetensors library itself: safetensors.numpy.save({...}) of version 0.8.0.
FROM_THE_LIBRARY = (
    b'\x18\x01\x00\x00\x00\x00\x00\x00{"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
    b'"x":{"dtype":"F64","shape":[1,1],"data_offsets":[8,16]},'
    b'"e":{"dtype":"I32","shape":[0,3],"data_offsets":[16,16]},'
    b'"n":{"dtype":"I16","shape":[2],"data_offsets":[16,20]},'
    b'"flag":{"dtype":"BOOL","shape":[2],"data_offsets":[20,22]}}'
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x9a\x99\x99\x99\x99\x99\xb9?\xff\xff\x02\x00\x01\x00"
)
# The same library, arrays of one dtype: {"b": [[0, 1, 2], [3, 4, 5]], "a": [1.5, -2]} as float32.
FROM_THE_LIBRARY_ONE_DTYPE = (
    b'p\x00\x00\x00\x00\x00\x00\x00{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}}  '
    b"\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@"
)

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
names = st.text(min_size=1, max_size=12).filter(lambda name: name.isprintable())
Tensors = dict[str, NDArray[Any]]


def craft(header: object, data: bytes = b"") -> bytes:
    """A file with any JSON value as its header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: object) -> dict[str, object]:
    """The header entry of eight bytes of float64, with changes; a change to None takes the key away."""
    whole = {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]} | changes
    return {key: value for key, value in whole.items() if value is not None}


def reads_or_refuses(content: bytes) -> None:
    try:
        tensors = read_tensors(content)
    except BundleError as error:
        reason = error.reason
    else:
        assert sum(array.nbytes for array in tensors.values()) <= len(content)
        return
    assert reason == "model"


@given(st.dictionaries(names, arrays, max_size=6))
def test_every_array_comes_back_bit_for_bit(tensors: Tensors) -> None:
    back = read_tensors(write_tensors(tensors))
    assert list(back) == sorted(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_equal_content_gives_equal_bytes_in_any_order() -> None:
    one, two = np.arange(3.0), np.arange(4, dtype=np.int32)
    assert write_tensors({"a": one, "b": two}) == write_tensors({"b": two, "a": one})


def test_big_endian_and_strided_arrays_are_written_as_the_format_asks() -> None:
    values = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    back = read_tensors(write_tensors({"x": values}))["x"]
    assert back.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(back, values)


def test_a_dtype_the_format_lacks_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="complex128"):
        write_tensors({"x": np.array([1j])})


def test_what_was_read_cannot_be_changed() -> None:
    assert not read_tensors(FROM_THE_LIBRARY)["x"].flags.writeable


def test_a_file_of_the_safetensors_library_is_read() -> None:
    tensors = read_tensors(FROM_THE_LIBRARY)
    assert tensors["s"] == 7
    assert tensors["x"].tolist() == [[0.1]]
    assert tensors["e"].shape == (0, 3)
    assert tensors["n"].tolist() == [-1, 2]
    assert tensors["flag"].tolist() == [True, False]


def test_what_is_written_is_what_the_safetensors_library_writes() -> None:
    tensors: Tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array([1.5, -2.0], dtype=np.float32),
    }
    assert write_tensors(tensors) == FROM_THE_LIBRARY_ONE_DTYPE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x00\x00",
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * (MAX_HEADER_BYTES + 1),
        (2**63).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"\xff\xfe{}",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        len(b'{"a":' + b"9" * 5000 + b"}").to_bytes(8, "little") + b'{"a":' + b"9" * 5000 + b"}",
        craft([]),
        craft({f"t{i}": entry(shape=[0], data_offsets=[0, 0]) for i in range(257)}),
        craft({"a": 1}),
        craft({"a": entry(dtype=None)}, bytes(8)),
        craft({"a": entry(more=1)}, bytes(8)),
        craft({"__metadata__": {"format": "np"}, "a": entry()}, bytes(8)),
        craft({"a": entry(dtype="F16")}, bytes(8)),
        craft({"a": entry(dtype=["F64"])}, bytes(8)),
        craft({"a": entry(shape=1)}, bytes(8)),
        craft({"a": entry(shape=[-1])}, bytes(8)),
        craft({"a": entry(shape=[True])}, bytes(8)),
        craft({"a": entry(shape=[1.0])}, bytes(8)),
        craft({"a": entry(shape=[1] * 5)}, bytes(8)),
        craft({"a": entry(shape=[2])}, bytes(8)),
        craft({"a": entry(shape=[2**40])}, bytes(8)),
        craft({"a": entry(shape=[2**39, 2**39, 0], data_offsets=[0, 0])}),
        craft({"a": entry(shape=[2**39, 0, 2**39], data_offsets=[0, 0])}),
        craft({"a": entry(data_offsets=[8, 0])}, bytes(8)),
        craft({"a": entry(data_offsets=[0])}, bytes(8)),
        craft({"a": entry(data_offsets=[1, 9])}, bytes(9)),
        craft({"a": entry()}, bytes(7)),
        craft({"a": entry()}, bytes(9)),
        craft({"a": entry(), "b": entry()}, bytes(16)),
        craft({"a": entry(dtype="BOOL", data_offsets=[0, 1])}, b"\x02"),
    ],
)
def test_a_malformed_file_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError) as refused:
        read_tensors(content)
    assert refused.value.reason == "model"
    assert refused.value.hint


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    reads_or_refuses(content)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), st.data())
def test_any_json_as_an_entry_is_refused_and_nothing_else_happens(value: object, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(("dtype", "shape", "data_offsets")))
    reads_or_refuses(craft({"a": entry(**{key: value})}, bytes(8)))


@settings(max_examples=200)
@given(st.integers(0, len(FROM_THE_LIBRARY) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_harmless(position: int, change: int) -> None:
    damaged = bytearray(FROM_THE_LIBRARY)
    damaged[position] ^= change
    reads_or_refuses(bytes(damaged))


def test_every_truncation_is_refused() -> None:
    for length in range(len(FROM_THE_LIBRARY)):
        with pytest.raises(BundleError):
            read_tensors(FROM_THE_LIBRARY[:length])
