"""Arrays as data, never as code: a strict reader and writer of the safetensors layout.

Layout (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, a JSON header
`{name: {"dtype", "shape", "data_offsets": [begin, end]}}`, then the raw little-endian bytes. The reader
accepts less than the format allows: known dtypes, gapless and in-order data, no metadata, bounded sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError

MAX_HEADER_BYTES = 256 * 1024
MAX_TENSORS = 256
MAX_DIMENSIONS = 4

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("<i1"),
    "U8": np.dtype("<u1"),
    "BOOL": np.dtype("?"),
}
_NAMES: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in _DTYPES.items()}


def write_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Serialise arrays in name order, so that equal content gives equal bytes.

    Raises ValueError for a dtype the format of bundles does not know.
    """
    return b"".join(tensor_parts(tensors))


def tensor_parts(tensors: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    """The same in parts to be joined or written one after the other; views of the arrays, not copies."""
    header: dict[str, dict[str, object]] = {}
    chunks: list[bytes | memoryview] = []
    offset = 0
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        dtype = array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
        if dtype not in _NAMES:
            raise ValueError(f"tensor {name!r} has dtype {array.dtype}, which bundles do not hold")
        data = np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8).data
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts aligned, as the format asks
    return [len(text).to_bytes(8, "little"), text, *chunks]


def read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """Read-only views into `content`, one per tensor.

    Raises BundleError("model") for anything but a well-formed file; never allocates by a length it was told.
    """
    if len(content) < 8:
        raise _malformed("it is shorter than its length field")
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER_BYTES or 8 + length > len(content):
        raise _malformed(f"its header claims {length} bytes")
    try:
        header = json.loads(content[8 : 8 + length].decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _malformed("its header is not JSON") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _malformed("its header is not an object of at most 256 tensors")
    data = memoryview(content)[8 + length :]
    tensors: dict[str, NDArray[Any]] = {}
    expected = 0
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry)
        if begin != expected or end - begin != prod(shape) * dtype.itemsize or end > len(data):
            raise _malformed(f"tensor {name!r} does not fit its bytes")
        tensors[name] = np.frombuffer(data[begin:end], dtype=dtype).reshape(shape)
        if dtype.kind == "b" and (tensors[name].view(np.uint8) > 1).any():
            raise _malformed(f"tensor {name!r} holds booleans other than 0 and 1")
        expected = end
    if expected != len(data):
        raise _malformed("bytes are left over after the last tensor")
    return tensors


def _entry(name: str, entry: object) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"tensor {name!r} lacks dtype, shape or data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    shape, offsets = entry["shape"], entry["data_offsets"]
    if dtype is None or not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise _malformed(f"tensor {name!r} has an unknown dtype or shape")
    if prod(max(size, 1) for size in shape) >= 2**40:  # empty, yet beyond what an array can be shaped to
        raise _malformed(f"tensor {name!r} has an impossible shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise _malformed(f"tensor {name!r} has impossible offsets")
    return dtype, tuple(shape), offsets[0], offsets[1]


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**40 for item in value
    )


def _malformed(what: str) -> BundleError:
    return BundleError(
        "model",
        f"a tensor file is malformed: {what}",
        "publish the bundle again; the file was damaged or not written by anomaly-trainer",
    )
