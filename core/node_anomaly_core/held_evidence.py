"""The evidence of one node as it meets the threshold: all of it, what counts, who does not bear it out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS
from node_anomaly_core.steady import PeakHold
from node_anomaly_core.witnesses import Witness, witnessed_one


class HeldEvidence:
    """Running peaks of the combined evidence and of what of it counts, and who said what meanwhile.

    The last of the three only says why there is no alarm: it decides nothing, and a restart begins it anew.
    """

    def __init__(self, witnesses: Sequence[Witness]) -> None:
        self._witnesses = tuple(witnesses)
        self.restart()

    def restart(self) -> None:
        """Forget the last ticks: they are no neighbours of the next one."""
        self._whole, self._counted = PeakHold(), PeakHold()
        self._said: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=HOLD_TICKS)
        self._now = (float("nan"), float("nan"))

    def step(self, combined: float, counted: float, evidence: Mapping[str, float]) -> tuple[float, float]:
        """This tick's evidence of all together, what of it counts, and each member's own; NaN = unknown.

        What counts, and all of it, with their peaks held.
        """
        self._said.append((combined, evidence))
        self._now = self._counted.step(counted), self._whole.step(combined)
        return self._now

    def missing(self, level: float) -> tuple[Witness, ...]:
        """Whose agreement an alarm waits for: all of the evidence reaches the level, what counts does not.

        All of them where each bears it out at another tick.
        """
        counted, whole = self._now
        if not whole >= level or counted >= level:
            return ()
        lacking = tuple(
            witness
            for witness in self._witnesses
            if not any(witnessed_one(*said, (witness,)) >= level for said in self._said)
        )
        return lacking or self._witnesses

    def state(self) -> dict[str, NDArray[np.float64]]:
        """What a restart needs, for `restore`."""
        return {"evidence": self._counted.state(), "whole_evidence": self._whole.state()}

    def restore(self, state: Mapping[str, NDArray[np.float64]]) -> None:
        """Take over what `state` saved; raises ValueError for more ticks than are held."""
        self._counted.restore(state["evidence"])
        self._whole.restore(state["whole_evidence"])
