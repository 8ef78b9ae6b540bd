"""What each number of the summary says, in words: an importance of "number 37" tells nobody anything."""

from __future__ import annotations

from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import EXCEEDANCES, SUMMARY_WIDTH, TOP_SHARES, WIDTH_PER_BLOCK

BLOCK_WORDS = {
    "level": "distance from the usual level",
    "level_day": "distance from the level of the last day",
    "level_hour": "distance from the level of the last hour",
    "difference": "jump since the last tick",
    "mean_5m_60m": "last 5 minutes against the last hour",
    "mean_15m_240m": "last 15 minutes against the last 4 hours",
    "mean_3m_15m": "last 3 minutes against the last 15",
    "spread_5m": "scatter over 5 minutes",
    "spread_15m": "scatter over 15 minutes",
    "spread_60m": "scatter over an hour",
    "spread_day": "scatter against the last day's",
    "unpredicted": "surprise to the autoregression",
    "unexplained": "outside the fleet's common patterns",
    "unrelated": "contradiction to the other features",
    "unpredicted_15m": "surprise over 15 minutes",
    "level_day_15m": "distance from the last day's level, over 15 minutes",
}


def summary_words(number: int, width: int = SUMMARY_WIDTH) -> str:
    """The words for one number of a summary of that width; rows of another width are only counted.

    >>> summary_words(0)
    'distance from the usual level, the strangest feature'
    >>> summary_words(6)
    'distance from the usual level, share of features above 3 scales'
    >>> summary_words(128 + 6, width=256)
    "distance from the usual level, share of features above 3 scales, against this node's own past"
    >>> summary_words(3, width=24)
    'number 3'
    """
    if width == 2 * SUMMARY_WIDTH:
        normalised, number = divmod(number, SUMMARY_WIDTH)
        return summary_words(number) + (", against this node's own past" if normalised else "")
    if width != SUMMARY_WIDTH:
        return f"number {number}"
    block, at = divmod(number, WIDTH_PER_BLOCK)
    if at >= len(TOP_SHARES):
        of = f"share of features above {EXCEEDANCES[at - len(TOP_SHARES)]:g} scales"
    elif TOP_SHARES[at] == 0.0:
        of = "the strangest feature"
    elif TOP_SHARES[at] == 1.0:
        of = "all features"
    else:
        of = f"the strangest {TOP_SHARES[at]:.0%} of features"
    return f"{BLOCK_WORDS[BLOCKS[block]]}, {of}"
