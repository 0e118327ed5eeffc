"""app/keys.py and `wattseal keygen`: keys of those who sign notes, each in files that say whose they are."""

import stat
from pathlib import Path

import pytest

from gateway.app.keys import ROLES, make_key, read_signer, read_verifier
from gateway.cli import run
from gateway.errors import ConfigError
from gateway.tlog.note import SignatureKind


@pytest.mark.parametrize("role", ROLES)
def test_a_new_key_is_its_owners_alone_and_says_whose_it_is(tmp_path: Path, role: str) -> None:
    """The public part beside it is the one that others pin."""
    assert run(["keygen", role, "acme", "--out", str(tmp_path / "a.key")]) == 0
    signer = read_signer(tmp_path / "a.key", "key", name=f"{ROLES[role]}acme")
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    kind = SignatureKind.COSIGNATURE if role == "ledger" else SignatureKind.NOTE
    assert read_verifier(tmp_path / "a.vkey", "vkey", kind=kind).public_key == signer.verifier.public_key
    assert (tmp_path / "a.note.vkey").exists() == (role == "ledger")


def test_no_key_is_written_over(tmp_path: Path) -> None:
    """Nor its public part, and a name must be one."""
    make_key(tmp_path / "a.key", "officer", "jane")
    before = (tmp_path / "a.key").read_text()
    with pytest.raises(ConfigError, match=r"a\.key.*want a new file"):
        make_key(tmp_path / "a.key", "officer", "joe")
    assert (tmp_path / "a.key").read_text() == before
    with pytest.raises(ConfigError, match="officer: got 'jane doe'"):
        make_key(tmp_path / "b.key", "officer", "jane doe")
