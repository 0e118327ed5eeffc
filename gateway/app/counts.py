"""What collect counts, for its metrics."""

from dataclasses import dataclass

from gateway.app.metrics import counter, gauge


@dataclass(slots=True)
class CollectCounts:
    """What collect counts."""

    polls: int = counter("polls of a device")
    errors: int = counter("polls that a device did not answer")
    rows: int = counter("rows read")
    readings: int = counter("values read")
    changes: int = counter("changes that devices told by themselves")
    suppressed: int = counter("values read that were not worth telling")
    points_stale: int = gauge("points whose value has stood still for too long")
    frames: int = counter("frames that agents signed, handed on as they came")
    missed_ticks: int = counter("ticks that were skipped because a poll took too long")
    devices_down: int = gauge("devices whose circuit breaker is open")
    lag_s: float = gauge("how long after its tick the latest poll ended")
    lag_worst_s: float = gauge("the worst lag since the start")
    queue_bytes: int = gauge("bytes that wait for the seal")
    dropped_rows: int = counter("rows dropped because the queue to the seal was full")
    sealed: int = counter("batches that the seal acknowledged")
    refused: int = counter("batches that the seal refused")
    reconnects: int = counter("connections made to the seal")
