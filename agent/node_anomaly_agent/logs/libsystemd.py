"""The few calls of libsystemd's sd_journal_*(3) that reading a journal takes, by ctypes.

The library is on every host that has a journal and in Debian's container images; it decompresses, follows
rotation and steps over damaged files. See docs/adr/0018 for what else was weighed.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from functools import cache
from typing import Any

LOCAL_ONLY = 1
_P = ctypes.c_void_p
_MADV_DONTNEED = 4
_MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r--s .*\.journal~?(?: \(deleted\))?$", re.MULTILINE)
_MAX_MAPS_BYTES = 1 << 20


class JournalError(Exception):
    """A call that libsystemd refused; the message says which and why."""


@cache
def library() -> ctypes.CDLL:
    """Libsystemd with the calls declared. Raises OSError where there is none."""
    lib = ctypes.CDLL("libsystemd.so.0")
    pointer, text, size = ctypes.POINTER, ctypes.c_char_p, ctypes.c_size_t
    for name, arguments in (
        ("open", (pointer(_P), ctypes.c_int)),
        ("open_directory", (pointer(_P), text, ctypes.c_int)),
        ("close", (_P,)),
        ("next", (_P,)),
        ("next_skip", (_P, ctypes.c_uint64)),
        ("previous", (_P,)),
        ("seek_head", (_P,)),
        ("seek_tail", (_P,)),
        ("seek_cursor", (_P, text)),
        ("test_cursor", (_P, text)),
        ("get_cursor", (_P, pointer(_P))),
        ("get_data", (_P, text, pointer(_P), pointer(size))),
        ("set_data_threshold", (_P, size)),
        ("wait", (_P, ctypes.c_uint64)),
    ):
        function = getattr(lib, f"sd_journal_{name}")
        function.argtypes = arguments
        function.restype = None if name == "close" else ctypes.c_int
    lib.free.argtypes = (_P,)
    lib.free.restype = None
    return lib


def release(maps: str = "/proc/self/maps") -> None:
    """Let go of the mapped pages of journal files; what is needed of them is mapped again when it is.

    They are the kernel's cache of the files, and yet count as this process' own memory: some MiB after a
    storm. Takes 0.1 ms, where opening the journal anew takes 0.2 to 2 ms, the more the more files it has.
    """
    with suppress(OSError, AttributeError), open(maps, "rb", buffering=0) as file:  # noqa: PTH123  # every tick
        text = b"".join(iter(lambda: file.read(64 << 10), b""))
        for found in _MAPPED.finditer(text[:_MAX_MAPS_BYTES]):
            begin = int(found[1], 16)
            _libc().madvise(begin, int(found[2], 16) - begin, _MADV_DONTNEED)


@cache
def _libc() -> Any:
    library = ctypes.CDLL(None)
    library.madvise.argtypes = (_P, ctypes.c_size_t, ctypes.c_int)
    return library


class Journal:
    """One open journal. Raises JournalError where libsystemd refuses; belongs to one thread."""

    def __init__(self, directory: str | None, data_limit: int) -> None:
        """Open the local journal or a directory's; of each field at most `data_limit` bytes are read."""
        self._lib: Any = library()
        self._handle = _P()
        if directory is None:
            self._check("open", self._lib.sd_journal_open(ctypes.byref(self._handle), LOCAL_ONLY))
        else:
            path = os.fsencode(directory)
            self._check("open", self._lib.sd_journal_open_directory(ctypes.byref(self._handle), path, 0))
        self._lib.sd_journal_set_data_threshold(self._handle, data_limit)
        self._data = _P()
        self._size = ctypes.c_size_t()
        self._data_at, self._size_at = ctypes.byref(self._data), ctypes.byref(self._size)

    def refresh(self) -> None:
        """Notice files that have come, grown or gone."""
        self._check("wait", self._lib.sd_journal_wait(self._handle, 0))

    def to_end(self) -> bool:
        """Stand on the last entry; False if there is none."""
        self._check("seek_tail", self._lib.sd_journal_seek_tail(self._handle))
        return self._check("previous", self._lib.sd_journal_previous(self._handle)) > 0

    def to_start(self) -> None:
        """Stand before the first entry."""
        self._check("seek_head", self._lib.sd_journal_seek_head(self._handle))

    def to_cursor(self, cursor: str) -> bool | None:
        """Stand on a cursor's entry: True. If it is gone, on the first after it: False; None if none is."""
        text = cursor.encode()
        self._check("seek_cursor", self._lib.sd_journal_seek_cursor(self._handle, text))
        if not self.next():
            return None
        return self._check("test_cursor", self._lib.sd_journal_test_cursor(self._handle, text)) > 0

    def next(self) -> bool:
        """Step to the next entry; False if there is none yet."""
        return self._check("next", self._lib.sd_journal_next(self._handle)) > 0

    def back(self) -> bool:
        """Step to the entry before; False if there is none."""
        return self._check("previous", self._lib.sd_journal_previous(self._handle)) > 0

    def skip(self, entries: int) -> int:
        """Step over up to so many entries; how many there were."""
        return self._check("next_skip", self._lib.sd_journal_next_skip(self._handle, entries))

    def field(self, name: bytes) -> bytes | None:
        """The value of a field of the entry, None if it has none or it cannot be read (a damaged file)."""
        if self._lib.sd_journal_get_data(self._handle, name, self._data_at, self._size_at) < 0:
            return None
        return ctypes.string_at(self._data.value or 0, self._size.value)[len(name) + 1 :]

    def cursor(self) -> str:
        """Where the entry stands, good for another process."""
        place = _P()
        self._check("get_cursor", self._lib.sd_journal_get_cursor(self._handle, ctypes.byref(place)))
        try:
            return ctypes.string_at(place.value or 0).decode("ascii", "replace")
        finally:
            self._lib.free(place)

    def close(self) -> None:
        """Unmap every file."""
        if self._handle:
            self._lib.sd_journal_close(self._handle)
            self._handle = _P()

    def _check(self, call: str, result: int) -> int:
        if result < 0:
            raise JournalError(f"sd_journal_{call}: {os.strerror(-result)}")
        return result
