"""One test a named attack."""
