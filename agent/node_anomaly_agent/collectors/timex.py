"""Offset of the clock from its time source: adjtimex(2), read only. It needs no privilege."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import CollectorMissing
from node_anomaly_core.expressions import Reading

STA_NANO = 0x2000
"""Bit of `status`: the offset is in nanoseconds, not microseconds."""

_HEAD = struct.Struct("@illlli")  # modes, offset, freq, maxerror, esterror, status of struct timex
_SIZE = 512  # struct timex has 208 bytes on 64-bit Linux

Adjtimex = Callable[[], bytes]


def parse_timex(data: bytes) -> Reading:
    """Offset in seconds from a raw struct timex; ValueError if it is too short."""
    if len(data) < _HEAD.size:
        raise ValueError(f"struct timex has {len(data)} bytes, at least {_HEAD.size} expected")
    _, offset, _, _, _, status = _HEAD.unpack_from(data)
    return {("node_timex_offset_seconds", ""): offset * (1e-9 if status & STA_NANO else 1e-6)}


def kernel_adjtimex() -> Adjtimex:
    """The C library's adjtimex with modes 0; CollectorMissing where there is none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError) as error:
        raise CollectorMissing("the C library has no adjtimex") from error

    buffer = ctypes.create_string_buffer(_SIZE)  # all zero, and the kernel leaves `modes` as it is

    def adjtimex() -> bytes:
        if call(buffer) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "adjtimex")
        return ctypes.string_at(buffer, _HEAD.size)

    return adjtimex


class TimexCollector:
    """Asks the kernel; the paths do not matter, a machine has one clock."""

    name = "timex"

    def __init__(self, paths: Paths, adjtimex: Adjtimex | None = None) -> None:
        self._adjtimex = adjtimex

    def read(self) -> Reading:
        """Offset in seconds; 0 while nothing disciplines the clock."""
        if self._adjtimex is None:
            self._adjtimex = kernel_adjtimex()
        return parse_timex(self._adjtimex())

    def close(self) -> None:
        """Nothing is held open."""
