"""What others check: exports, their leaves and proofs, and how a figure came about."""
