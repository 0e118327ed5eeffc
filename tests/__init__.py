"""The tests; the folder says what kind."""
