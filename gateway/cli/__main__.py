"""`python -m gateway.cli`: the wattseal command."""

from gateway.cli import main

main()
