"""What a worker has done so far, for whoever wants to look."""

from __future__ import annotations

import attrs


@attrs.define
class Metrics:
    """Counts of one task group.  They only grow, except `running`.

    Attributes:
        running: handlers that are at work now.
        succeeded, failed, cancelled: how handlers have ended.
        lost: those whose lease was lost before they could say how they ended.
        unreported: those whose end the broker did not take.
        busy_s: the time that handlers took, all together, in seconds.
    """

    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    unreported: int = 0
    busy_s: float = 0.0

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled + self.lost
