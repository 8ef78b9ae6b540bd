"""Patterns of lines are found, bounded, and remembered without their words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.log_templates import TemplateMiner


def test_lines_that_differ_in_numbers_are_one_pattern():
    miner = TemplateMiner()
    miner.mine(b"".join(b"took %d ms for id-%d\n" % (n, n * 7919) for n in range(500)))
    assert (len(miner), miner.created) == (1, 1)


def test_lines_that_differ_in_a_word_are_one_pattern_and_others_are_not():
    miner = TemplateMiner()
    miner.mine(b"session opened for user alice\nsession opened for user bob\nsession opened for user carol\n")
    assert len(miner) == 1
    miner.mine(b"disk sda is failing now\nkernel: oops\n")
    assert len(miner) == 3


def test_a_syslog_head_is_no_part_of_the_pattern():
    miner = TemplateMiner()
    miner.mine(b"Nov 25 10:00:00 web-1 app: started well\nDec  1 11:22:33 db app: started well\n")
    assert len(miner) == 1


def test_the_examples_are_the_lines_of_new_patterns():
    miner = TemplateMiner()
    assert miner.mine(b"a b 1\na b 2\nc d e\n", examples=5) == [b"a b 1", b"c d e"]
    assert miner.mine(b"a b 3\nf g h\ni j k\n", examples=1) == [b"f g h"]


def test_it_never_holds_more_than_its_bound():
    """The one not seen for longest goes, and comes back as a new one."""
    miner = TemplateMiner(max_templates=10)
    words = [bytes([97 + a, 97 + b]) * 3 for a in range(20) for b in range(20)]
    miner.mine(b"".join(word + b" x\n" for word in words))
    assert len(miner) == 10
    assert miner.created == 400
    miner.mine(words[-1] + b" x\n")
    assert miner.created == 400
    miner.mine(words[0] + b" x\n")
    assert miner.created == 401


def test_a_pattern_that_other_words_show_again_is_not_the_one_that_makes_room():
    miner = TemplateMiner(max_templates=2)
    miner.mine(b"user alice logged in\n")
    miner.mine(b"disk sda is failing\n")
    miner.mine(b"user bob logged in\n")
    miner.mine(b"kernel: oops\n")
    assert miner.created == 3
    miner.mine(b"user carol logged in\n")
    assert miner.created == 3
    miner.mine(b"disk sda is failing\n")
    assert miner.created == 4


def test_after_a_restart_known_patterns_are_known_and_no_word_was_saved():
    miner = TemplateMiner()
    lines = b"session opened for user alice\nsession opened for user bob\nhunter is the password of root\n"
    miner.mine(lines)
    saved = json.loads(json.dumps(miner.state()))
    assert "hunter" not in json.dumps(saved)
    other = TemplateMiner()
    assert other.restore(saved)
    assert other.mine(lines + b"session opened for user mallory\n", examples=9) == []
    assert other.created == miner.created == 2


@pytest.mark.parametrize(
    "state",
    [{}, {"created": -1, "tokens": ""}, {"created": True, "tokens": ""}, {"created": 1, "tokens": "?"},
     {"created": 1, "tokens": "/////w=="}, {"created": 1, "tokens": 3},
     {"created": 1, "tokens": "AgAAAAEAAAA="}],
    ids=str,
)  # fmt: skip
def test_a_foreign_state_changes_nothing(state):
    miner = TemplateMiner()
    miner.mine(b"a b c\n")
    assert not miner.restore(state)
    assert len(miner) == 1


@given(st.lists(st.binary(max_size=80), max_size=30), st.integers(1, 5))
def test_any_bytes_are_mined_within_the_bound(lines, bound):
    miner = TemplateMiner(bound)
    for line in lines:
        miner.mine(line)
        miner.mine(line + b"\n")
    assert len(miner) <= bound
    other = TemplateMiner(bound)
    assert other.restore(miner.state())
    assert len(other) == len(miner)
