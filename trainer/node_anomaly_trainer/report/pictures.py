"""The pictures of a report, drawn with matplotlib as SVG that stands in the page itself."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_anomaly_trainer.report.record import Distributions

OURS, THEIRS, WARN, FAINT = "#1f5fa8", "#9aa7b4", "#c0392b", "#d9dfe5"
STYLE: Any = {  # matplotlib types a dictionary of its own three hundred keys
    "svg.fonttype": "none",  # text stays text: it can be searched and is small
    "svg.hashsalt": "node-anomaly",  # the same numbers, the same file
    "text.parse_math": False,  # a node may be called a$b$
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a949e",
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
OTHERS = ("pca", "plain_kmeans", "production")


Draw = Callable[[Axes], None]


def drawing(width: float, height: float, draw: Draw, *, opaque: bool = False) -> str:
    """What `draw` puts into an empty picture of this size in inches, as an <svg> element.

    No window system and no global state are touched. An `opaque` one is white where a page may be dark.
    """
    stream = io.StringIO()
    with rc_context(STYLE):
        picture = Figure(figsize=(width, height), layout="constrained")
        draw(picture.add_subplot())
        picture.savefig(
            stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=not opaque
        )
    text = stream.getvalue()
    return text[text.index("<svg") :]


def recall_bars(recall: Mapping[str, float], title: str, ours: str = "combined") -> str:
    """One bar for each detector or kind of fault, the value beside it; unknown ones are said to be so."""

    def draw(axes: Axes) -> None:
        names = list(recall)[::-1]
        values = [recall[name] for name in names]
        colours = [OURS if name == ours or name not in OTHERS else THEIRS for name in names]
        axes.barh(
            [name.replace("_", " ") for name in names],
            [0.0 if math.isnan(value) else value for value in values],
            color=colours,
            height=0.66,
        )
        for at, value in enumerate(values):
            known = not math.isnan(value)
            axes.text(
                (value if known else 0.0) + 0.012,
                at,
                f"{value:.0%}" if known else "unknown",
                va="center",
                size=8,
            )
        axes.set_xlim(0.0, 1.12)
        axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_title(title)
        axes.tick_params(axis="y", length=0)

    return drawing(5.2, 0.7 + 0.27 * max(len(recall), 1), draw)


def score_distribution(found: Distributions) -> str:
    """Normal ticks and ticks within faults over the score, each as a share of its own, on a log scale."""

    def draw(axes: Axes) -> None:
        for counts, name, colour in (
            (found.normal, "held-back normal", THEIRS),
            (found.faulty, "within injected faults", OURS),
        ):
            total = sum(counts)
            if not total:
                continue
            shares = [
                count / total / (found.edges[at + 1] - found.edges[at]) for at, count in enumerate(counts)
            ]
            axes.stairs(shares, list(found.edges), fill=True, alpha=0.55, color=colour, label=name)
        axes.axvline(1.0, color=WARN, lw=1.2)
        axes.text(1.03, 0.96, "alarm", color=WARN, size=8, va="top", transform=axes.get_xaxis_transform())
        axes.set_yscale("log")
        axes.set_xlabel("anomaly_score (the last bin holds all above)")
        axes.set_ylabel("density")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, loc="upper right", fontsize=8)
        axes.set_title("Where scores lie")

    return drawing(5.2, 2.7, draw)


def calibration(found: Distributions) -> str:
    """How often normal ticks reach a level, against how often they were promised to."""

    def draw(axes: Axes) -> None:
        axes.plot(found.levels, found.promised, color=THEIRS, lw=1.4, label="promised")
        axes.plot(found.levels, found.observed, color=OURS, lw=0, marker="o", ms=4, label="observed")
        axes.axvline(1.0, color=WARN, lw=1.0)
        axes.set_yscale("log")
        axes.set_xlabel("level of anomaly_score")
        axes.set_ylabel("share of ticks above")
        axes.yaxis.set_major_formatter("{x:g}")
        total = max(sum(found.normal), 10)
        axes.set_ylim(0.3 / total, 1.5)
        axes.axhline(1.0 / total, color=FAINT, lw=1.0)
        axes.text(found.levels[0], 1.1 / total, "one tick of all", color=THEIRS, size=8)
        axes.legend(frameon=False, fontsize=8)
        axes.set_title("Calibration on held-back normal data")

    return drawing(5.2, 2.7, draw)


def learning_curve(losses: Sequence[float]) -> str:
    """Validation loss of the LSTM over its epochs; the best one marked."""

    def draw(axes: Axes) -> None:
        epochs = range(1, len(losses) + 1)
        best = min(range(len(losses)), key=losses.__getitem__)
        axes.plot(epochs, losses, color=OURS, lw=1.4, marker="o", ms=3)
        axes.plot([best + 1], [losses[best]], color=WARN, marker="o", ms=6)
        axes.annotate(
            f"kept: epoch {best + 1}, {losses[best]:.4f}",
            (best + 1, losses[best]),
            xytext=(0, -13),
            textcoords="offset points",
            size=8,
            ha="right" if best > len(losses) / 2 else "left",
        )
        axes.set_xticks(range(1, len(losses) + 1, max(1, len(losses) // 10)))
        axes.margins(y=0.2)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation loss (Huber)")
        axes.set_title("LSTM learning curve")

    return drawing(5.2, 2.7, draw)


def coverage_map(share: Sequence[Sequence[float]], nodes: Sequence[str], start: str, stop: str) -> str:
    """Which node was seen when; white is nothing."""

    def draw(axes: Axes) -> None:
        axes.imshow(share, aspect="auto", cmap="Blues", vmin=0.0, vmax=1.3, interpolation="nearest")
        every = max(1, len(nodes) // 40)
        axes.set_yticks(range(0, len(nodes), every), [nodes[at] for at in range(0, len(nodes), every)])
        axes.set_xticks([0, len(share[0]) - 1], [start, stop])
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.tick_params(length=0)
        axes.set_title("Values known, per node over time")

    return drawing(10.6, min(1.2 + 0.16 * len(nodes), 9.0), draw)
