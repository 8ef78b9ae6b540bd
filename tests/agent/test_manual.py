"""The man page and the completions say what the command line takes."""

from __future__ import annotations

import re
import subprocess

import pytest

from node_anomaly_agent.config import KEYS

FILES = (
    "man/man1/anomaly-agent.1",
    "bash-completion/completions/anomaly-agent",
    "zsh/site-functions/_anomaly-agent",
)


@pytest.fixture(scope="module")
def share(request):
    return request.config.rootpath / "agent" / "share"


@pytest.mark.parametrize("file", FILES)
def test_every_setting_is_in_every_file(share, file):
    text = (share / file).read_text().replace("\\-", "-")
    assert [setting.path for setting in KEYS if setting.path not in text] == []


def test_the_man_page_is_sound_roff(share):
    """Known requests alone, no text line that roff would take for one, every font change undone."""
    for line in (share / FILES[0]).read_text().splitlines():
        if line.startswith((".", "'")):
            assert line.split()[0] in {'.\\"', ".TH", ".SH", ".TP", ".B", ".br", ".RS", ".RE"}
        assert len(re.findall(r"\\f[BI]", line)) == line.count("\\fR")
        assert not re.search(r"\\(?![&e\"fBIR-])", line)


def complete(share, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    listed = " ".join(f"'{word}'" for word in words)
    script = f"""
        source {share / FILES[1]}
        COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}
        function=$(complete -p anomaly-agent | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function anomaly-agent '{words[-1]}' '{words[-2]}'
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_settings_commands_and_their_actions(share):
    assert "--web.config.file" in complete(share, "anomaly-agent", "--web.")
    assert complete(share, "anomaly-agent", "check") == ["check-config"]
    assert complete(share, "anomaly-agent", "bundle", "v") == ["verify"]
    assert complete(share, "anomaly-agent", "--output", "j") == ["json"]
