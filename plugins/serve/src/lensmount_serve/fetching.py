"""Pictures by address: public addresses only, whatever the name resolves to and wherever it redirects.

The name is resolved once, every address of the answer is checked, and the connection goes to one that was checked: a
second answer of the name server (DNS rebinding) is never asked for. Each redirect is a new address, checked again.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from typing import Any
from urllib.parse import urljoin, urlsplit

from lensmount.specs.offline import is_offline
from lensmount_serve.failures import AnswerError

_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_CHUNK = 1 << 16
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def fetch(address: str, *, limit: int, seconds: float) -> bytes:
    """The bytes behind an address.

    Args:
        address: `http://` or `https://`, on their usual ports.
        limit: Most bytes.
        seconds: Time for all of it, redirects included.

    Raises:
        AnswerError: 400, when the address is not allowed, does not answer in time, or answers with something else than
            bytes within the limit.
    """
    if is_offline():
        raise AnswerError(400, "pictures by address cannot be had: the server is offline")
    end = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        answer, body = _get(address, limit, end)
        if answer is None:
            return body
        address = urljoin(address, answer)
    raise AnswerError(400, "the picture's address redirects too often")


def _get(address: str, limit: int, end: float) -> tuple[str | None, bytes]:
    """Where an address leads on to, or its bytes."""
    scheme, host, path = parts_of(address)
    port = _PORTS[scheme]
    try:
        connection = _Pinned(host, checked(host, port), port, scheme == "https", _left(end))
        try:
            connection.request("GET", path, headers={"User-Agent": "lensmount-serve", "Accept": "image/*"})
            connection.sock.settimeout(_left(end))
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308) and (target := answer.getheader("Location")):
                return target, b""
            if answer.status != 200:
                raise AnswerError(400, f"the picture's address answers with status {answer.status}")
            return None, _read(connection, answer, limit, end)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AnswerError(400, f"the picture's address cannot be read ({type(error).__name__})") from error


def parts_of(address: str) -> tuple[str, str, str]:
    """Scheme, host and path with query of an address that may be asked for.

    Raises:
        AnswerError: 400, for another scheme, a user name, another port, or what is no address.
    """
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise AnswerError(400, "the picture's address is not valid") from error
    if scheme not in _PORTS or not host:
        raise AnswerError(400, "a picture's address begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise AnswerError(400, "a picture's address holds no user and password")
    if port not in (None, _PORTS[scheme]):
        raise AnswerError(400, "a picture's address has the usual port: 80 for http, 443 for https")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(ord(letter) <= 32 or ord(letter) > 126 for letter in target + host):
        raise AnswerError(400, "the picture's address is not valid: it holds spaces or other than ASCII characters")
    return scheme, host, target


def checked(host: str, port: int) -> str:
    """An address of a host, all of whose addresses are public.

    Raises:
        AnswerError: 400, where one is not.
    """
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise AnswerError(400, "the host of the picture's address is not known") from error
    if not found or not all(is_public(address) for address in found):
        raise AnswerError(400, "the picture's address is not a public one")
    return sorted(found, key=lambda address: (":" in address, address))[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could be asked at, also where it wraps another one."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if any(ip in net for net in _NAT64) or int(ip) >> 32 == 0:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, in the name of its host."""

    def __init__(self, host: str, address: str, port: int, secure: bool, seconds: float) -> None:
        super().__init__(f"[{host}]" if ":" in host else host, port, timeout=seconds)
        self._address = address
        self._secure = ssl.create_default_context() if secure else None
        self._name = host

    def connect(self) -> None:
        made: Any = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = made if self._secure is None else self._secure.wrap_socket(made, server_hostname=self._name)


def _read(connection: _Pinned, answer: http.client.HTTPResponse, limit: int, end: float) -> bytes:
    body = bytearray()
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(_left(end))
        part = answer.read1(_CHUNK)
        if not part:
            return bytes(body)
        body += part
        if len(body) > limit:
            raise AnswerError(400, f"the picture behind the address is larger than {limit} bytes")


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise AnswerError(400, "the picture's address takes too long to answer")
    return left
