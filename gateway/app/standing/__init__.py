"""What the ledger holds of its gateways' state, and what people decided."""
