"""`provision station --simulate`: units in software, through the station's own code and the units' own protocol.

Each unit is a TPM of its own (swtpm), new, with an EK certificate by a maker made on the spot, and a unit's side in
this process. A unit's TPM runs only while it is enrolled, and its folder goes afterwards: any number fits.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.app.enrolment.enrolee import Enrolee
from gateway.app.enrolment.identity import Identity
from gateway.errors import ConfigError
from gateway.tlog.note import Signer
from provisioning.ca.folder import make_all, to_pem
from provisioning.ca.unlock import Unlock
from provisioning.registrar.registrar import Registrar
from provisioning.station.books import Books
from provisioning.station.link import Transport
from provisioning.station.maker import Maker, new_tpm, now, open_tpm, running_tpm
from provisioning.station.order import LENIENT, Order, Policy
from provisioning.station.station import Station
from provisioning.station.transport import Direct

_IMAGE = b"wattseal simulated image\n"
_SCHEME = "simulated:"
COUNTER = 0x01805753


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """A station of simulated units. orders: one a unit; connect makes the unit when its turn comes."""

    station: Station
    orders: Iterator[Order]


@contextmanager
def simulated(count: int, *, seed: str) -> Iterator[Simulation]:
    """Give a station and so many units. seed: the middle of the serials. Raises ConfigError.

    Its authority, registrar and log are thrown away: no TPM in software gets a certificate of a real factory.
    """
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        maker = Maker("Simulated TPM Maker", now=now())
        (folder / "image").write_bytes(_IMAGE)
        units = Units(folder / "u", maker=maker, image=folder / "image")
        station = stack.enter_context(_throw_away(folder, units, maker))
        yield Simulation(station=station, orders=_orders(count, seed=seed))


def _orders(count: int, *, seed: str) -> Iterator[Order]:
    image = hashlib.sha256(_IMAGE).hexdigest()
    for place in range(1, count + 1):
        serial = f"SIM-{seed}-{place:05d}"
        yield Order(
            serial=serial,
            address=f"{_SCHEME}{serial}",
            model="WS-SIM",
            order="simulation",
            operator="nobody",
            image_sha256=image,
        )


class Units:
    """Makes units when they are first reached, and runs them as long as they are talked to."""

    def __init__(self, folder: Path, *, maker: Maker, image: Path) -> None:
        self._folder, self._maker, self._image = folder, maker, image

    def connect(self, address: str) -> Transport:
        """Return the transport to a simulated unit, made when there is none."""
        if not address.startswith(_SCHEME):
            raise ConfigError(f"address: got {address!r}, want {_SCHEME}<serial>")
        serial = address.removeprefix(_SCHEME)
        own = self._folder / hashlib.sha256(serial.encode()).hexdigest()[:10]
        with ExitStack() as stack:
            tpm_folder = own / "t"
            if not tpm_folder.exists():
                new_tpm(tpm_folder, self._maker)
            tcti = stack.enter_context(running_tpm(tpm_folder))
            tpm = stack.enter_context(open_tpm(tcti))
            identity = Identity(own / "identity")
            stack.enter_context(identity.taken())
            unit = Enrolee(tpm=tpm, identity=identity, image=self._image, serial=serial, about={"version": "simulated"})
            kept = stack.pop_all()

        def end() -> None:
            kept.close()
            if identity.is_enrolled:
                shutil.rmtree(own, ignore_errors=True)

        return Direct(unit.answer, close=end)


@contextmanager
def _throw_away(folder: Path, units: Units, maker: Maker) -> Iterator[Station]:
    """Give a station whose authority, registrar and log are gone afterwards."""
    password = Unlock(secret=hashlib.sha256(os.urandom(32)).hexdigest())
    _, authority, _ = make_all(folder / "ca", name="Simulated", root_unlock=password, unlock=password, passes=1)
    factory = Signer.generate("wattseal-factory/simulated")
    anchors = {
        "device-ca.pem": to_pem([authority.chain[-1]]),
        "verifier.vkey": Signer.generate("wattseal-verifier/simulated").verifier.vkey.encode(),
        "ledger.vkey": Signer.generate("wattseal-ledger/simulated").cosigner().verifier.vkey.encode(),
        "factory.vkey": factory.verifier.vkey.encode(),
    }
    policy = Policy(
        station="simulation",
        roots=(maker.root,),
        intermediates=(),
        ek_policy=LENIENT,
        ek_kinds=("rsa2048",),
        anchors=anchors,
        nv_index=COUNTER,
        nv_floor=1,
        pcrs=(*range(10), 11, 14),
        timeout_s=60.0,
        image_timeout_s=60.0,
    )
    url = f"sqlite:///{folder / 'registrar.db'}"
    with contextlib.closing(Registrar.open(url, log=folder / "log", signer=factory)) as registrar:
        yield Station(
            policy=policy,
            books=Books(registrar=registrar, authority=authority, factory=factory),
            connect=units.connect,
            label_folder=folder / "labels",
            label_format="svg",
            now_s=lambda: int(time.time()),
        )
