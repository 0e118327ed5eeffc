"""For all tests: no test fails because the machine is slow; a TPM in software is made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tpms import make_state, running_tpm

settings.register_profile("wattseal", deadline=None, print_blob=True)
settings.load_profile("wattseal")


@pytest.fixture(scope="session")
def tpm_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the state of a TPM that has left its maker: with EK certificates, and never used."""
    return make_state(tmp_path_factory.mktemp("tpm"))


@pytest.fixture
def tcti(tpm_state: Path, tmp_path: Path) -> Iterator[str]:
    """Give the TCTI of a running TPM of the test's own; all of them have the same seeds, as copies of one."""
    folder = tmp_path / "t"
    folder.mkdir()
    with running_tpm(tpm_state, folder) as tcti:
        yield tcti
