"""The severity of a line is what it says of itself, else what it tells of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.log_severity import UNKNOWN, count_severities, line_severities

SAID = [
    (b"<11>Jan  2 03:04:05 host app: hello", 3),
    (b"<190>informational", 6),
    (b"E0102 15:04:05.123456       1 reflector.go:1] watch ended", 3),
    (b"W0102 15:04:05.123456       1 x.go:1] INFO is not the level here", 4),
    (b'{"msg":"ERROR in the text","level":"info"}', 6),
    (b'{"level":50,"msg":"pino"}', 3),
    (b'{"severity": "WARNING", "message": "x"}', 4),
    (b'ts=1 level=warn msg="ERROR"', 4),
    (b"2026-01-02 03:04:05,678 ERROR [main] o.a.Server - it broke", 3),
    (b"2026-01-02 INFO Worker - ERROR comes second", 6),
    (b"[Sun Dec 04 04:47:44 2005] [error] mod_jk child init 1 -2", 3),
    (b"2026 [core:warn] [pid 1] AH00098: pid file", 4),
    (b"Jan  2 host sshd[1]: error: kex_exchange_identification", 3),
    (b"warning: something is odd", 4),
    (b"FATAL: the database system is starting up", 2),
    (b"PANIC!", 0),
    (b"DEBUG tokens=3", 7),
    (b'{"level":8,"msg":"ERROR is what it says else"}', 3),  # neither one of syslog's nor one of pino's
    (b"<200>ERROR after what is no priority", 3),
]
TOLD = [
    (b"java.lang.IllegalStateException: closed", 3),
    (b"app[7]: segfault at 0 ip 00 sp 00", 3),
    (b"Out of memory: Killed process 3", 3),
    (b"Failed password for root from 192.0.2.7 port 22 ssh2", 4),
    (b"connection refused", 4),
    (b"done, no error", UNKNOWN),
    (b"finished with 0 errors", UNKNOWN),
    (b"errors=0 requests=12", UNKNOWN),
    (b"copied 12 files, errors: 0", UNKNOWN),
    (b"all is well", UNKNOWN),
    (b"INFORMATIONAL_VALUE=3 PREERROR", 3),
    (b"", UNKNOWN),
]


@pytest.mark.parametrize(("line", "level"), SAID + TOLD, ids=lambda value: repr(value)[:40])
def test_a_line_alone(line, level):
    assert line_severities(line + b"\n").tolist() == [level]


def test_a_block_gives_each_line_what_it_gets_alone():
    block = b"".join(line + b"\n" for line, _ in SAID + TOLD)
    assert line_severities(block).tolist() == [level for _, level in SAID + TOLD]
    assert count_severities(line_severities(block)) == (14, 7)


def test_what_the_record_said_counts_and_the_text_tells_the_rest():
    assert line_severities(b"ERROR a\nERROR b\nfine\n", bytes([6, UNKNOWN, UNKNOWN])).tolist() == [
        6,
        3,
        UNKNOWN,
    ]
    assert line_severities(b"ERROR a\nb\n", bytes([5, 2])).tolist() == [5, 2]


@given(st.lists(st.one_of(st.sampled_from([line for line, _ in SAID + TOLD]), st.binary(max_size=60))))
def test_any_bytes_have_one_severity_a_line(lines):
    """And a neighbour never changes it."""
    lines = [line.replace(b"\n", b"") for line in lines]
    block = b"".join(line + b"\n" for line in lines)
    found = line_severities(block)
    assert found.dtype == np.uint8
    assert found.tolist() == [level for line in lines for level in line_severities(line + b"\n").tolist()]


def test_a_coloured_level_is_one():
    lines = b"\x1b[31mERROR\x1b[0m x\n10:00 \x1b[1;33mWARN\x1b[0m y\n\x1b[36mlevel\x1b[0m=error z\n"
    assert line_severities(lines).tolist() == [3, 4, 3]
