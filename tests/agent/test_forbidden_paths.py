"""Paths that this user may not enter, or that nobody could: an answer with a remedy, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_anomaly_agent.cli import main
from node_anomaly_agent.episode_commands import find_directory
from node_anomaly_agent.state import closed_directory, writable_directory

TOO_LONG = "/tmp/" + "x" * 300


def said(forbidden: tuple[Path, list[str]], *arguments: str) -> tuple[int, str]:
    """Exit code and what the command prints, run as a user like any other."""
    done = subprocess.run(
        [*forbidden[1], sys.executable, "-m", "node_anomaly_agent", *arguments],
        env={**os.environ, "STATE_DIRECTORY": str(forbidden[0])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def test_episodes_of_another_user_are_said_to_be_that(forbidden):
    """As for whoever is not root on a host where the agent is a service of its own user."""
    code, text = said(forbidden, "episodes")
    assert code == 1
    assert f"error: {forbidden[0]} cannot be read by this user" in text
    assert "/api/v1/episodes" in text


def test_once_says_that_it_may_not_see_the_history_of_the_agent_that_runs(forbidden):
    code, text = said(forbidden, "--once")
    assert code == 3
    assert f"This user may not read {forbidden[0]}" in text
    assert "anomaly-agent explain" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--state.directory=FORBIDDEN/state", "--web.listen-address=127.0.0.1:0"), "cannot be written"),
        (("--state.directory=FORBIDDEN/state", "episodes"), "cannot be read by this user"),
        (("bundle", "activate", "0123456789abcdef", "--bundle.directory=FORBIDDEN/b"), "Permission denied"),
        (("bundle", "verify", "FORBIDDEN/b"), "Permission denied"),
        (("--config.file=FORBIDDEN/agent.yml",), "Permission denied"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_below_such_a_folder_is_an_error_with_a_remedy(forbidden, arguments, says):
    code, text = said(forbidden, *(one.replace("FORBIDDEN", str(forbidden[0])) for one in arguments))
    assert code == 1
    assert says in text
    assert "try: " in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--state.directory", TOO_LONG, "--web.listen-address=127.0.0.1:0"],
        ["--state.directory", TOO_LONG, "episodes"],
        ["bundle", "show", TOO_LONG],
        ["--config.file", TOO_LONG],
    ],
)
def test_a_name_that_no_file_can_have_is_an_error_with_a_remedy(arguments, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "try: " in error


def test_a_state_directory_that_cannot_be_entered_is_passed_over(tmp_path):
    assert writable_directory([Path(TOO_LONG), tmp_path / "a"]) == tmp_path / "a"
    assert closed_directory([Path(TOO_LONG), tmp_path]) is None
    assert find_directory([tmp_path]) == tmp_path / "episodes"
