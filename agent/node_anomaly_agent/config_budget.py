"""Settings of the `budget` group: what the agent itself may use before its most expensive model goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node_anomaly_agent.config_episodes import whole_number
from node_anomaly_agent.config_logs import byte_count
from node_anomaly_agent.config_values import InvalidValue, Setting


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """The limits; 0 is none.

    Attributes:
        cpu_share: of one core, over a tick.
        memory_bytes: resident.
        ticks: how long one has to be exceeded, in a row.
    """

    cpu_share: float = 0.0
    memory_bytes: float = 0.0
    ticks: int = 20

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.cpu_share > 0 or self.memory_bytes > 0

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> BudgetConfig:
        """From the parsed values of all settings."""
        return cls(parsed["budget.cpu"], parsed["budget.memory"], parsed["budget.ticks"])


def core_share(value: object) -> float:
    """A share of one core, 0 for no limit."""
    try:
        share = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        share = math.nan
    if not 0.0 <= share <= 64.0:
        raise InvalidValue(f"expected a share of one core such as 0.01, or 0 for no limit, got {value!r}")
    return share


def maybe_bytes(value: object) -> int:
    """Bytes, 0 for no limit."""
    return 0 if str(value) == "0" else byte_count(value)


ROWS: tuple[Setting, ...] = (
    Setting(
        "budget.cpu", core_share, 0, "share of a core that the agent may use (default: no limit)", "SHARE"
    ),
    Setting("budget.memory", maybe_bytes, 0, "memory that it may have resident (default: no limit)", "SIZE"),
    Setting(
        "budget.ticks",
        whole_number(1, 10000),
        20,
        "evaluations in a row above the budget before the LSTM is left out",
        "N",
    ),
)


def describe_budget(config: BudgetConfig) -> list[tuple[str, object]]:
    """Rows for check-config; none without a limit."""
    if not config.limited:
        return []
    cpu = f"{config.cpu_share:g} of a core" if config.cpu_share else "no limit"
    memory = f"{config.memory_bytes / 2**20:g} MiB" if config.memory_bytes else "no limit"
    return [("budget", f"CPU {cpu}, memory {memory}, over {config.ticks} evaluations")]
