"""When the seal goes over to a new epoch key. The TPM works on a thread of its own: the log does not wait for it."""

import asyncio

from structlog.typing import FilteringBoundLogger

from gateway.app.sealer import Sealer
from gateway.app.trust.epochs import Epoch
from gateway.errors import GatewayError

RETRY_S = 60.0
"""After a renewal that failed, the next one is tried so soon; or after the ordinary time, if that is shorter."""


class Renewal:
    """Renews one sealer's key. every_s, retry_s: from one try to the next."""

    def __init__(self, sealer: Sealer, log: FilteringBoundLogger, *, every_s: float, retry_s: float = RETRY_S) -> None:
        self._sealer, self._log, self._every_s, self._retry_s = sealer, log, every_s, min(retry_s, every_s)
        self._loop = asyncio.get_running_loop()
        self._due_s = self._loop.time() + every_s
        self._making: asyncio.Future[Epoch] | None = None

    def beat(self) -> bool:
        """Do what is due: begin, or take what the TPM has made; return whether a new key signs from here on."""
        now_s = self._loop.time()
        if self._making is None:
            if now_s >= self._due_s and self._sealer.epochs.may_sign:
                self._making = self._loop.run_in_executor(None, self._sealer.epochs.make, *self._sealer.next_epoch())
            return False
        if not self._making.done():
            return False
        making, self._making = self._making, None
        self._due_s = now_s + self._retry_s
        try:
            epoch = making.result()
        except GatewayError as e:
            if self._sealer.keep_key(e):
                self._log.error("seal.epoch_kept", why=str(e))
            return False
        if not self._sealer.renew(epoch):
            return False  # no room for its leaf: the budget's business, and tried again
        self._due_s = now_s + self._every_s
        self._log.info("seal.epoch", number=epoch.number)
        return True
