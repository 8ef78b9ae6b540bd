"""How often the severity read from a line's text is the one of its label: `python bench/log_severity.py DIR`.

DIR holds loghub's samples (https://github.com/logpai/loghub): NAME.log.gz and NAME.log_structured.csv.gz,
whose column Level is the label. They are for research only, so none of their lines is in this repository.
A label counts as right if the line falls on the same side: error or worse, warning, or neither.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
from pathlib import Path

from node_anomaly_core.log_severity import ERROR, WARNING, line_severities

ERRORS = frozenset({"error", "severe", "fatal", "failure", "critical"})
WARNINGS = frozenset({"warn", "warning"})


def kind_of_label(label: str) -> str:
    """What the label counts as."""
    word = label.lower()
    return "error" if word in ERRORS else "warning" if word in WARNINGS else "neither"


def kind_of_severity(severity: int) -> str:
    """What a severity counts as, as in the agent's counters."""
    return "error" if severity <= ERROR else "warning" if severity == WARNING else "neither"


def main() -> None:
    """Print a row for each labelled sample; the exit status says whether all are right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    print("| sample | lines | errors | warnings | right |\n|---|---:|---:|---:|---:|")
    wrong = 0
    for labels in sorted(options.directory.glob("*.log_structured.csv.gz")):
        rows = list(csv.DictReader(io.StringIO(gzip.decompress(labels.read_bytes()).decode())))
        if "Level" not in rows[0] or {row["Level"] for row in rows} == {
            "combo"
        }:  # Linux has a host name there
            continue
        sample = labels.with_name(labels.name.replace("_structured.csv", ""))
        text = gzip.decompress(sample.read_bytes()).replace(b"\r\n", b"\n")
        expected = [kind_of_label(row["Level"]) for row in rows]
        found = [kind_of_severity(severity) for severity in line_severities(text).tolist()]
        if len(found) != len(expected):
            raise SystemExit(f"{sample} has {len(found)} lines and {len(expected)} labels")
        right = sum(mine == theirs for mine, theirs in zip(found, expected, strict=True))
        wrong += len(expected) - right
        name = sample.name.removesuffix("_2k.log.gz")
        figures = [len(expected), expected.count("error"), expected.count("warning"), right]
        print(f"| {name} | {' | '.join(f'{figure:,}' for figure in figures)} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
