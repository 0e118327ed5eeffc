"""What the ledger counts; docs/metrics.md says what each means."""

from dataclasses import dataclass

from gateway.app.metrics import counter, gauge


@dataclass(slots=True)
class LedgerCounts:
    """What the ledger counts."""

    messages: int = counter("messages taken from the broker")
    refused: int = counter("messages refused: malformed, not signed by the gateway's key, or of another history")
    gaps: int = counter("messages that added nothing: a gap or a repetition")
    leaves: int = counter("leaves accepted")
    rows: int = counter("rows and changes of readings in accepted leaves")
    unusable: int = counter("accepted leaves that cannot be read")
    absent: int = counter("accepted leaves whose body the gateway had dropped")
    receipts: int = counter("receipts published")
    reconnects: int = counter("connections made to the broker")
    connected: int = gauge("1 while connected to the broker")
    full: int = counter("times that the disk had no room; what was not taken comes again")
    context: int = counter("facts of production context sealed, as systems of the DMZ say them")
    context_known: int = counter("facts of production context that were sealed already")
    context_refused: int = counter("messages of production context refused: malformed, not vouched for, or too many")
    feed_polls: int = counter("polls of providers of grid factors")
    feed_errors: int = counter("polls that a provider did not answer usefully")
    feed_factors: int = counter("versions of factors sealed from feeds")
    feeds_down: int = gauge("feeds whose newest poll failed")
    results: int = counter("attestation results taken from the verifier")
    results_refused: int = counter("attestation results refused: forged, replayed, late, or of another epoch or device")
    decisions: int = counter("signed decisions on gateways' leaves that were sealed")
    decisions_refused: int = counter("decisions refused: not by an officer, replayed, or about other leaves")
    gateways_unattested: int = gauge("gateways whose key is pinned: nothing attests their devices")
    gateways_trusted: int = gauge("gateways whose newest result is good")
    gateways_pending: int = gauge("gateways not appraised since they started")
    gateways_stale: int = gauge("gateways whose newest good result is too old")
    gateways_unreachable: int = gauge("gateways that did not answer their verifier in time")
    gateways_failed: int = gauge("gateways that were appraised, and found wrong")
    quarantined: int = gauge("interval leaves that are kept, and that no figure rests on")
    size: int = gauge("leaves held, over all gateways")
    disk_bytes: int = gauge("bytes of leaf bodies on disk")
