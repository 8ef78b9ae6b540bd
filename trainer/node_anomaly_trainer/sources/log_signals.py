"""What a simulated node logs: lines follow its requests and jobs, errors follow what goes wrong on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from node_anomaly_trainer.sources.signals import Floats, NodeState

LINE_BYTES = 115.0
SERVED_WELL = 0.93
"""Share of the CPU demand met below which requests begin to fail, and programs to say so."""


def _lines(s: NodeState) -> Floats:
    """Lines per second: some for each request, some for each process that is started, and a murmur."""
    each = 0.004 + 0.02 * (s.machine.cron_minute % 7) / 6.0
    rate = 0.05 + each * s.demand.requests + 0.15 * s.demand.forks + _troubles(s) + _grumbles(s)
    return s.counted(rate)


def _troubles(s: NodeState) -> Floats:
    """Errors per second."""
    background = 0.0005 + 2e-6 * s.demand.requests
    failing = np.maximum(SERVED_WELL - s.served, 0.0) * np.minimum(0.1 * s.demand.requests + 2.0, 60.0)
    lost = np.minimum(200.0 * np.maximum(s.demand.loss - 1e-3, 0.0), 10.0)
    return np.asarray(background + failing + 6.0 * s.tight + lost)


def _grumbles(s: NodeState) -> Floats:
    """Warnings per second."""
    slow = np.maximum(s.demand.slow_disk - 3.0, 0.0) * 0.2
    return 0.003 + 3e-5 * s.demand.requests + 0.01 * s.demand.forks + slow + 2.0 * _troubles(s) ** 0.5 * 0.05


def _share_of_errors(s: NodeState) -> Floats:
    errors = s.counted(_troubles(s))
    return errors / np.maximum(_lines(s) + errors, 1.0)


def _new_templates(s: NodeState) -> Floats:
    # Something never said before: seldom, and more often where there is trouble.
    return s.counted(2e-5 + 0.02 * np.minimum(_troubles(s), 1.0) ** 2)


def _templates(s: NodeState) -> Floats:
    start = 120.0 + 6.0 * s.machine.cron_minute
    return np.minimum(start + np.cumsum(_new_templates(s)) * s.interval_s, 1000.0)


def _where_logged(signal: Callable[[NodeState], Floats]) -> Callable[[NodeState], Floats]:
    """The signal where a node's logs may be read, which is not everywhere."""
    return lambda s: np.full(len(s.busy), np.nan) if s.machine.cron_minute % 5 == 0 else signal(s)


LOG_SIGNALS: dict[str, Callable[[NodeState], Floats]] = {
    "log_lines_per_second": _where_logged(_lines),
    "log_bytes_per_second": _where_logged(lambda s: s.noisy(LINE_BYTES * _lines(s), 0.05)),
    "log_errors_per_second": _where_logged(lambda s: s.counted(_troubles(s))),
    "log_warnings_per_second": _where_logged(lambda s: s.counted(_grumbles(s))),
    "log_errors_ratio": _where_logged(_share_of_errors),
    "log_new_templates_per_second": _where_logged(_new_templates),
    "log_templates_count": _where_logged(_templates),
    "log_silence_seconds": _where_logged(lambda s: np.zeros(len(s.busy))),
}
"""How each feature of the group `logs` is read off a simulated node."""
