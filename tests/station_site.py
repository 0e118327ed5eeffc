"""A station's files and one unit's command, as a factory has them: for tests through the command line."""

import shutil
import sys
from pathlib import Path

from provisioning.registrar.place import make_place
from provisioning.station.maker import new_tpm
from tests.stations import IMAGE, IMAGE_SHA256, LEDGER, MAKER, PASSWORD, VERIFIER, make_authority

BIN = Path(sys.executable).parent

STATION = """\
[station]
name = "line-1"
operator = "A. Smith"
order = "WO-17"
model = "WS-100"
image_sha256 = "{image}"
[unit]
command = [{command}]
timeout_s = {timeout_s}
{unit}
[ca]
folder = "ca/devices"
unlock = "ca.password"
[registrar]
folder = "registrar"
[ek]
roots = "ek-roots"
[anchors]
verifier = "verifier.vkey"
ledger = "ledger.vkey"
"""


def unit_command(folder: Path, tcti: str, serial: str) -> list[str]:
    """Return the command of a unit's side, its files in folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image").write_bytes(IMAGE)
    (folder / "serial").write_text(serial)
    return [
        *(str(BIN / "wattseal"), "enrol", "--identity", str(folder / "identity"), "--tcti", tcti),
        *("--image", str(folder / "image"), "--serial-file", str(folder / "serial")),
    ]


def make_site(folder: Path, command: list[str], *, unit: str = "", timeout_s: float = 20.0) -> Path:
    """Make a station's folder; return its station.toml."""
    make_authority(folder / "ca" / "devices")
    (folder / "ca.password").write_text(PASSWORD.secret)
    (folder / "ca.password").chmod(0o600)
    make_place(folder / "registrar", name="acme")
    (folder / "ek-roots").mkdir()
    (folder / "ek-roots" / "maker.pem").write_bytes(MAKER.root_pem)
    (folder / "verifier.vkey").write_text(VERIFIER.verifier.vkey)
    (folder / "ledger.vkey").write_text(LEDGER.cosigner().verifier.vkey)
    quoted = ", ".join(f'"{part}"' for part in command)
    text = STATION.format(image=IMAGE_SHA256, command=quoted, unit=unit, timeout_s=timeout_s)
    (folder / "station.toml").write_text(text)
    return folder / "station.toml"


def board_tpm(folder: Path) -> Path:
    """Make a TPM of the approved maker; return its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    new_tpm(folder, MAKER)
    return folder
