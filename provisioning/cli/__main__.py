"""`python -m provisioning.cli` is `provision`."""

from provisioning.cli import main

main()
