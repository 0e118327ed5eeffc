"""The error tree. A class is a decision: what the program does next.

GatewayError
  ConfigError    an operator edits a file             exit 2
  DeviceError    a field device misbehaved            its readings go BAD, polling goes on
  LinkError      a peer of ours cannot be reached     retry with back-off; nothing is lost by it
  TrustError     a signature or evidence is wrong     drop, count, alarm; never retry
  LogError       the log cannot be trusted            stop the process
anything else is a bug, and stops the process
"""


class GatewayError(Exception):
    """Base of all errors that this program raises on purpose."""


class ConfigError(GatewayError):
    """Raised when a file of the operator's cannot be used; the text says where, got and want."""


class DeviceError(GatewayError):
    """Raised when a field device did not answer, or answered wrongly; its readings go BAD."""


class LinkError(GatewayError):
    """Raised when the broker, the seal or another peer of ours is out of reach; retried."""


class TrustError(GatewayError):
    """Raised when a signature, a proof or signed bytes are wrong or malformed; never retried.

    index: the leaf or row index that is wrong, where one is known.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class LogError(GatewayError):
    """Raised when the log on disk contradicts what was signed; the process stops."""
