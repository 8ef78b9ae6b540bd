"""Pieces that every section of the status page is made of.

Only `text` and `code` escape; what the others are given is HTML already, but for titles.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

LONGEST_TEXT = 300

_FULL_SCALE = 2.0  # a score's bar ends at twice the threshold


def text(value: object, longest: int = LONGEST_TEXT) -> str:
    """Any value as escaped text, cut where it is too long for a page."""
    shown = str(value)
    return escape(shown if len(shown) <= longest else shown[: longest - 1] + "…")


def code(value: object) -> str:
    """A name, escaped, in the font of names; a long one breaks where people would break it."""
    return f"<code>{text(value).replace('_', '_<wbr>').replace('/', '/<wbr>')}</code>"


def card(title: str, content: str, kind: str = "") -> str:
    """A section with a heading; `content` is HTML."""
    return f'<section class="card {kind}"><h2>{text(title)}</h2>{content}</section>'


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], numbers_from: int = 99) -> str:
    """A table of cells that are HTML already; columns from `numbers_from` on are right-aligned."""

    def cells(tag: str, row: tuple[str, ...]) -> str:
        kinds = (' class="n"' if at >= numbers_from else "" for at in range(len(row)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(row, kinds, strict=True))

    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, the values HTML."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def score_text(score: float) -> str:
    """A score with two digits; one that rounds to zero has no sign."""
    return f"{score:.2f}".replace("-0.00", "0.00")


def share_bar(share: float) -> str:
    """A bar for a share of 1."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="100" height="6" class="rail"/>'
        f'<rect width="{width:.1f}" height="6" class="fill"/></svg>'
    )


def score_bar(score: float) -> str:
    """A bar from 0 to twice the threshold, with the threshold marked."""
    width = 100 * min(max(score, 0.0), _FULL_SCALE) / _FULL_SCALE
    kind = "bad" if score >= 1 else "ok"
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        '<rect width="100" height="6" class="rail"/>'
        f'<rect width="{width:.1f}" height="6" class="{kind}"/>'
        '<rect x="49.5" width="1" height="6" class="mark"/></svg>'
    )
