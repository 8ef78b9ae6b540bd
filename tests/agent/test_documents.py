"""docs/metrics.md and docs/features.md say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from node_anomaly_core.features import CATALOGUE


def docs(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(repository / "scripts" / "docs.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_they_are_as_the_code_has_them(repository):
    """`make docs` writes them anew."""
    done = docs(repository, "--check")
    assert done.returncode == 0, done.stderr


def test_a_difference_is_found_and_repaired(repository, tmp_path):
    (tmp_path / "metrics.md").write_text("# Metrics\n")
    assert "run `make docs`" in docs(repository, "--check", "--directory", str(tmp_path)).stderr
    assert "wrote metrics.md, features.md" in docs(repository, "--directory", str(tmp_path)).stdout
    assert docs(repository, "--check", "--directory", str(tmp_path)).returncode == 0


def test_every_metric_of_a_scrape_is_documented(repository, fixtures):
    """Those of the golden scrape, which is a real daemon's."""
    text = (repository / "docs" / "metrics.md").read_text()
    scraped = re.findall(r"^# TYPE (\w+) (\w+)$", (fixtures / "golden_metrics.txt").read_text(), re.MULTILINE)
    assert len(scraped) > 20
    for name, kind in scraped:
        assert f"| `{name}` | {kind} |" in text


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda f: f.name)
def test_every_feature_is_documented_with_its_query(feature, repository):
    text = (repository / "docs" / "features.md").read_text()
    assert f"\n# {feature.name}\n{feature.promql()}\n" in text
    assert feature.help in text
