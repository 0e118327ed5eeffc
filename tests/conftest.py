"""For all tests: no test fails because the machine is slow."""

from hypothesis import settings

settings.register_profile("wattseal", deadline=None, print_blob=True)
settings.load_profile("wattseal")
