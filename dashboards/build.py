"""The four dashboards as JSON: `python -m dashboards.build` in the repository's root.

With --check nothing is written; the exit code is 1 if a file differs from what the code says.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dashboards import detection, infrastructure, models, overview
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).resolve().parent
PAGES = {
    "overview.json": overview.build,
    "detection.json": detection.build,
    "models.json": models.build,
    "infrastructure.json": infrastructure.build,
}


def as_json(name: str) -> str:
    """One dashboard, with the panels numbered in their order."""
    page: dict[str, Any] = json.loads(json.dumps(PAGES[name]().build(), cls=JSONEncoder))
    for number, panel in enumerate(page["panels"], start=1):
        panel["id"] = number
    for mark in page["annotations"]["list"]:
        mark.update(titleFormat=mark["name"], textFormat="{{instance}}", step="30s")
    return json.dumps(page, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check all of them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    options = parser.parse_args()
    differ = []
    for name in PAGES:
        path, text = FOLDER / name, as_json(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            differ.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if differ and options.check:
        print(f"{', '.join(differ)} differ from the code: run `python -m dashboards.build`", file=sys.stderr)
        return 1
    print(f"wrote {', '.join(differ)}" if differ else "the dashboards are as the code has them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
