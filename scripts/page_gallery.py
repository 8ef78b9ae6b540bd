"""Draws the status page in each state and at each width, to be looked at.

    python scripts/page_gallery.py DIRECTORY

writes an HTML file of each state, and, where Chromium is on PATH, pictures of it at a phone's, a tablet's
and a desktop's width, light and dark.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from node_anomaly_agent.page import render_page
from node_anomaly_agent.site import Site
from page_states import NOW, STATES

WIDTHS = {360: 3200, 800: 2200, 1400: 1500}
"""Pixels of width, and of height, which is more than the page takes."""


def main() -> int:
    """Write all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--dark", action="store_true", help="dark pictures too")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    for state, make in STATES.items():
        page = arguments.directory / f"{state}.html"
        page.write_text(render_page(make(), Site("0.1.0", "db-17.example.net"), NOW), encoding="utf-8")
        print(page, page.stat().st_size, "bytes")
        for width in WIDTHS if browser else ():
            for dark in (False, True) if arguments.dark else (False,):
                picture = arguments.directory / f"{state}-{width}{'-dark' if dark else ''}.png"
                _draw(browser or "", page, picture, width, dark=dark)
    return 0


def _draw(browser: str, page: Path, picture: Path, width: int, *, dark: bool) -> None:
    # A window cannot be narrower than 500 pixels; a frame within it can.
    shown = page
    with tempfile.TemporaryDirectory() as scratch:
        if width < 500:
            shown = Path(scratch) / "frame.html"
            shown.write_text(
                f'<body style="margin:0"><iframe src="{page.resolve().as_uri()}" '
                f'style="border:0;width:{width}px;height:{WIDTHS[width]}px"></iframe>',
                encoding="utf-8",
            )
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--allow-file-access-from-files",
                *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
                f"--window-size={max(width, 500)},{WIDTHS[width]}",
                f"--screenshot={picture.resolve()}",
                shown.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )


if __name__ == "__main__":
    sys.exit(main())
