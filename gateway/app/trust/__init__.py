"""Whose signature counts on a gateway's log: keys of a file, epochs that a TPM vouches for."""
