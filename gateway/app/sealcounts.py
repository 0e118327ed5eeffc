"""What the seal counts: docs/metrics.md."""

from dataclasses import dataclass

from gateway.app.metrics import counter, gauge


@dataclass(slots=True)
class SealCounts:
    """What the seal counts."""

    leaves: int = counter("leaves sealed since the start")
    refused: int = counter("batches refused as malformed")
    duplicates: int = counter("batches that the log held already")
    full: int = counter("batches turned away because the disk budget was used up")
    log_size: int = gauge("leaves in the log, durable")
    checkpoint_size: int = gauge("size of the newest checkpoint")
    receipt_size: int = gauge("size of the newest receipt")
    disk_bytes: int = gauge("bytes of leaf bodies on disk")
    dropped: int = counter("leaf bodies dropped by the disk-full policy")
    isolated: int = gauge("1 when the process has no network")
    epoch: int = gauge("number of the epoch whose key signs")
    renewals_failed: int = counter("times that no new epoch key could be bound to the device; the old one signs on")
    evidence: int = counter("challenges of the verifier that were answered")
    challenges_refused: int = counter("challenges that were malformed, false or too many, or that the TPM failed at")
