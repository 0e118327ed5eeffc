"""provisioning/ca/token.py: an authority's key in a PKCS#11 token, here softhsm2."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import ConfigError
from provisioning.ca import Authority, Unlock, make_all
from provisioning.ca.token import TokenAddress, make_key, open_key
from tests.authorities import MODEL, NAME, new_key, openssl_says, request

PIN = Unlock(secret="246813")
MODULE = next(path for path in Path("/usr/lib").rglob("libsofthsm2.so"))


def uri(label: str) -> str:
    return f"pkcs11:token=factory;object={label}?module-path={MODULE}"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make a token of this module's own; softhsm2 finds it by the environment, once for the process."""
    folder = tmp_path_factory.mktemp("token")
    conf = folder / "softhsm2.conf"
    (folder / "tokens").mkdir()
    conf.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    command = ["softhsm2-util", "--init-token", "--free", "--label", "factory", "--pin", PIN.secret, "--so-pin", "8642"]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    yield
    os.environ.pop("SOFTHSM2_CONF") if before is None else os.environ.update(SOFTHSM2_CONF=before)


@pytest.mark.usefixtures("token")
def test_a_factory_can_keep_all_its_keys_in_a_token(tmp_path: Path) -> None:
    """The same certificates, that openssl accepts; no key file anywhere."""
    made = make_all(tmp_path / "ca", name=NAME, root_unlock=PIN, unlock=PIN, key=uri("wattseal-{role}"), curve="p384")
    devices = Authority.open(made[1].folder, unlock=PIN)
    assert openssl_says(devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL), devices, tmp_path) == "OK"
    operation = Authority.open(made[2].folder, unlock=PIN)
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw1", hours=1)
    assert openssl_says(ldevid, operation, tmp_path, "-purpose", "sslclient") == "OK"
    operation.revoke_subject("gw1", "superseded")
    operation.crl()
    assert "revoked" in openssl_says(ldevid, operation, tmp_path)
    assert not list(tmp_path.rglob("*.key"))
    assert not any(PIN.secret in path.read_text("latin-1") for path in (tmp_path / "ca").rglob("*") if path.is_file())


@pytest.mark.usefixtures("token")
def test_a_key_does_not_leave_its_token() -> None:
    key = make_key(uri("stays"), PIN, curve="p256")
    for asks in (
        key.private_numbers,
        lambda: key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        lambda: key.exchange(ec.ECDH(), new_key().public_key()),
    ):
        with pytest.raises(NotImplementedError):
            asks()
    signature = key.sign(b"text", ec.ECDSA(hashes.SHA256()))
    key.public_key().verify(signature, b"text", ec.ECDSA(hashes.SHA256()))
    assert key.key_size == 256


@pytest.mark.usefixtures("token")
def test_a_wrong_pin_a_missing_key_and_a_label_twice_are_said() -> None:
    make_key(uri("once"), PIN, curve="p256")
    with pytest.raises(ConfigError, match="already"):
        make_key(uri("once"), PIN, curve="p256")
    with pytest.raises(ConfigError, match="PinIncorrect"):
        open_key(uri("once"), Unlock(secret="135790"))
    with pytest.raises(ConfigError, match="No key matching"):
        open_key(uri("nowhere"), PIN)
    with pytest.raises(ConfigError, match="other"):
        open_key(uri("once").replace("token=factory", "token=other"), PIN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pkcs11:",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a;object=b?module-path=relative.so",
        "pkcs11:token=a;object=b?module-path=/x&pin-value=1234",
        "pkcs11:token=a;object=b?pin-value=1234&module-path=/x",
        "file:/ca.key",
    ],
)
def test_an_address_that_is_none_or_holds_a_pin_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="want pkcs11:") as caught:
        TokenAddress.parse(text)
    assert "1234" not in str(caught.value)


def test_three_keys_need_three_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="role"):
        make_all(tmp_path, name=NAME, root_unlock=PIN, unlock=PIN, key=uri("one"))
