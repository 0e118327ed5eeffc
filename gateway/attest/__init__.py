"""Attestation, pure: evidence of a device's state, checked and appraised. RATS words (RFC 9334); no TPM is needed."""
