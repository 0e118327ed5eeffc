"""The one owner of a TPM 2.0: identity, quotes, counters, sealed secrets. The only place that imports tpm2_pytss."""
