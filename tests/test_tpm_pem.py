"""gateway/tpm/pem.py: the key file that OpenSSL's provider reads, and everything else refused."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss.tsskey import TSSPrivKey

from gateway.errors import TrustError
from gateway.tpm import Tpm, pem
from gateway.tpm.keys import KeyBlob

BODY = base64.b64decode(pem.write(public=b"P" * 80, private=b"s" * 120, parent=0x40000001).split("-----")[2])


def armoured(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    return f"-----BEGIN TSS2 PRIVATE KEY-----\n{lines}\n-----END TSS2 PRIVATE KEY-----\n"


def test_a_key_file_is_what_another_reader_of_the_format_expects(tcti: str) -> None:
    """TPM2-TSS's own reader takes our file, and writes the same bytes."""
    with Tpm.open(tcti) as tpm:
        key = tpm.create_key()
    theirs = TSSPrivKey.from_pem(key.pem.encode())
    assert theirs.to_pem().decode() == key.pem
    assert theirs.parent == 0x40000001
    assert bytes(theirs.public.publicArea.marshal()) == key.public


@given(st.binary(min_size=1, max_size=300), st.binary(min_size=1, max_size=300), st.integers(1, 2**32 - 1))
def test_what_is_written_is_read_again(public: bytes, private: bytes, parent: int) -> None:
    """Writing and reading are inverse, for each length of an element."""
    key = KeyBlob(public=public, private=private, parent=parent)
    assert KeyBlob.from_pem(key.pem) == key


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_the_key(at: int, by: int) -> None:
    """No two files mean the same key."""
    changed = BODY[:at] + bytes((BODY[at] ^ by,)) + BODY[at + 1 :]
    with contextlib.suppress(TrustError):
        assert KeyBlob.from_pem(armoured(changed)) != KeyBlob.from_pem(armoured(BODY))


@given(st.binary(max_size=200))
def test_noise_in_armour_is_refused(noise: bytes) -> None:
    """A file that is no key file gives a TrustError and nothing else."""
    with pytest.raises(TrustError):
        KeyBlob.from_pem(armoured(noise))


@given(st.text(max_size=300))
def test_noise_is_refused(noise: str) -> None:
    """The same without the armour."""
    with pytest.raises(TrustError):
        KeyBlob.from_pem(noise)


def test_a_file_of_a_megabyte_is_refused_unread() -> None:
    """The size is bounded before anything is parsed."""
    with pytest.raises(TrustError, match="not one PEM block"):
        KeyBlob.from_pem(armoured(bytes(1_000_000)))
