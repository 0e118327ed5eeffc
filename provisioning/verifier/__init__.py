"""The attestation service: asks each gateway what state it is in, appraises the answer, and tells the ledger."""
