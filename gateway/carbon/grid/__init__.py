"""Grid factors: their file, their versions, and which of them applies."""
