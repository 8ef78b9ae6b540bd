"""How far the score is from what the bundle means: members that fail, and those the node cannot afford.

Core leaves a failing member out by itself (node_anomaly_core.degradation). Here the agent's own budget is
watched: when it is exceeded for long, the LSTM goes first, because it costs most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from node_anomaly_agent.config_budget import BudgetConfig
from node_anomaly_agent.families import Family, counter, plain_gauge
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.process_stats import ProcessStats

RECOVERED_SHARE = 0.8
"""Of the budget: use has to be below that for the LSTM to come back."""

FIRST_REST_TICKS = 240
LONGEST_REST_TICKS = 5760
"""How long the LSTM is left out at least; doubled each time that it had to go again soon after."""


@dataclass(frozen=True, slots=True)
class DegradationStatus:
    """What a scrape shows: the level (see node_anomaly_core.degradation.LEVELS) and failures by model."""

    level: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    dropped: bool = False


def degradation_families(status: DegradationStatus) -> Iterator[Family]:
    """The metrics."""
    yield plain_gauge(
        "anomaly_agent_degradation_level",
        "0 every model scores, 1 one is left out and a forest scores, 2 no forest does, 3 none: a robust z.",
        status.level,
    )
    yield counter(
        "anomaly_agent_model_failures",
        "Times that a model of the bundle in use raised an error or gave no number; it is then left out.",
        status.failures.items(),
        "model",
    )
    yield plain_gauge(
        "anomaly_agent_budget_exceeded",
        "Whether the LSTM is left out because the agent used more than budget.cpu or budget.memory.",
        status.dropped,
    )


class Budget:
    """What the agent itself may use. The loop's thread alone.

    Args:
        config: the limits; none of them need be set.
        log: told when the LSTM goes and comes back.
    """

    def __init__(self, config: BudgetConfig, log: Log) -> None:
        self._config = config
        self._log = log
        self._before = (math.nan, math.nan)  # monotonic seconds and CPU seconds at the tick before
        self._over = 0  # ticks in a row above the budget
        self._under = 0  # ticks in a row well below it
        self._rest = FIRST_REST_TICKS
        self._left = 0  # ticks until it may come back
        self._since_back = LONGEST_REST_TICKS
        self.exceeded = False

    def tick(self, now: float, stats: ProcessStats) -> bool:
        """Take in what the agent used until monotonic `now`; whether the LSTM is to be left out."""
        if not self._config.limited:
            return False
        seconds, cpu = now - self._before[0], stats.cpu_s - self._before[1]
        self._before = (now, stats.cpu_s)
        share = cpu / seconds if seconds > 0 else math.nan
        used = max(
            _part(share, self._config.cpu_share), _part(stats.resident_bytes, self._config.memory_bytes)
        )
        self._over = self._over + 1 if used > 1.0 else 0
        self._under = self._under + 1 if used < RECOVERED_SHARE else 0
        self._left = max(self._left - 1, 0)
        self._since_back += 1
        if not self.exceeded and self._over >= self._config.ticks:
            again = self._since_back < LONGEST_REST_TICKS
            self._rest = min(2 * self._rest, LONGEST_REST_TICKS) if again else FIRST_REST_TICKS
            self.exceeded, self._left = True, self._rest
            self._log.warning(
                "budget exceeded, the LSTM is left out", cpu_share=share, resident=stats.resident_bytes
            )
        elif self.exceeded and not self._left and self._under >= self._config.ticks:
            self.exceeded, self._since_back = False, 0
            self._log.info("within the budget, the LSTM comes back")
        return self.exceeded


def _part(used: float, limit: float) -> float:
    """How much of a limit is used; 0 where there is no limit or nothing is known."""
    return used / limit if limit > 0 and not math.isnan(used) else 0.0
