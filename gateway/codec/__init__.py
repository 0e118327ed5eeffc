"""Words on a wire to numbers and leaves, and back. Pure."""
