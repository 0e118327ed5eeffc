"""The certificate authorities of a factory: a root, and under it one for devices and one for operation."""

from provisioning.ca.authority import REASONS, Authority
from provisioning.ca.book import Issued
from provisioning.ca.folder import accept, make_all, make_request, make_root, put_hw_type, sign_request, trust_of
from provisioning.ca.profiles import Kind, Role
from provisioning.ca.unlock import Unlock

__all__ = [
    "REASONS",
    "Authority",
    "Issued",
    "Kind",
    "Role",
    "Unlock",
    "accept",
    "make_all",
    "make_request",
    "make_root",
    "put_hw_type",
    "sign_request",
    "trust_of",
]
