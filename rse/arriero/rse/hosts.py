"""Which host names and addresses may stand for a storage: pure.

An address has one spelling. Resolvers take `127.1`, `0x7f.1` and `2130706433` for `127.0.0.1`, and what a guard has
read as a name would be an address to them.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253})", re.ASCII)
_LIKE_A_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)


def is_host(text: str) -> bool:
    """Whether a text is a host name, or an IPv4 or IPv6 address in its ordinary spelling."""
    if ":" in text:
        return _is_address(text, ipaddress.IPv6Address)
    if _NAME.fullmatch(text) is None:
        return False
    last = text.rstrip(".").rpartition(".")[2]
    return _LIKE_A_NUMBER.fullmatch(last) is None or _is_address(text, ipaddress.IPv4Address)


def _is_address(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return "%" not in text


@lru_cache(maxsize=1024)
def address_fault(text: str) -> str:
    """Say why no storage can be at an address; empty when one can, and for a name.

    Link-local addresses are where clouds hand out the credentials of their machines.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_link_local:
        return "is link-local"
    if address.is_multicast:
        return "is for multicast"
    if address.is_unspecified or (
        isinstance(address, ipaddress.IPv4Address) and address.packed[0] in {0, 255}
    ):
        return "is nobody's"
    return ""
