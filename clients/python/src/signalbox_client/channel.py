"""TCP connections for HTTP, with TLS and through proxies."""

from __future__ import annotations

import asyncio
import functools
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_PORTS = {"http": 80, "https": 443, "socks5h": 1080, "socks5": 1080, "socks4a": 1080, "socks4": 1080}


@dataclass(frozen=True, slots=True)
class Origin:
    """The server of a URL."""

    secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The host and the port for the header `Host`."""
        standard = self.port == (443 if self.secure else 80)
        return self._host if standard else f"{self._host}:{self.port}"

    @property
    def tunnel(self) -> str:
        """The host and the port for CONNECT."""
        return f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        if ":" in self.host:
            return f"[{self.host}]"
        return self.host if self.host.isascii() else self.host.encode("idna").decode()


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of the environment."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that it needs."""
        if self.user is None:
            return {}
        credentials = f"{self.user}:{self.password or ''}".encode()
        return {"Proxy-Authorization": f"Basic {b64encode(credentials).decode()}"}


class Channel:
    """An open connection."""

    def __init__(self, protocol: _Protocol, transport: asyncio.Transport, proxy: Proxy | None) -> None:
        self.reader = protocol.reader
        #: The proxy that gets whole URLs in requests, and `Proxy.headers`; `None` if there is none.
        self.proxy = proxy
        self._protocol = protocol
        self._transport = transport

    @property
    def ended(self) -> bool:
        """Whether the peer has closed it."""
        return self._transport.is_closing() or self.reader.at_eof()

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` whenever bytes arrive."""
        self._protocol.heard = heard

    def write(self, data: bytes) -> None:
        """Write after what was written before."""
        self._transport.write(data)

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()


async def open_channel(origin: Origin, tls: ssl.SSLContext | None) -> Channel:
    """Connect to a server, through the proxy that the environment names for it.

    Raises `OSError`, `EOFError`, `ValueError` or `ImportError`.
    """
    loop = asyncio.get_running_loop()
    protocol = _Protocol()
    secured: dict[str, Any] = {}
    if origin.secure:
        secured = {"ssl": tls or _standard_tls(), "server_hostname": origin.host}
    proxy = proxy_for(origin)
    if proxy is None:
        transport, _ = await loop.create_connection(lambda: protocol, origin.host, origin.port, **secured)
    elif proxy.scheme.startswith("socks"):
        transport, _ = await loop.create_connection(lambda: protocol, sock=await _socks(proxy, origin), **secured)
    elif origin.secure:
        transport = await _tunnelled(proxy, origin, protocol, secured)
    else:
        transport, _ = await loop.create_connection(lambda: protocol, proxy.host, proxy.port, ssl=_tls_of(proxy))
        return Channel(protocol, transport, proxy)
    return Channel(protocol, transport, None)


def proxy_for(origin: Origin) -> Proxy | None:
    """The proxy of the environment for this server, as for WebSockets. Raises `ValueError` if it makes no sense."""
    if proxy_bypass(f"{origin.host}:{origin.port}"):
        return None
    proxies = getproxies()
    # A plain request needs no tunnel, so the proxy for HTTP comes before the one for HTTPS.
    for scheme in ("wss", "socks", "https") if origin.secure else ("ws", "socks", "http", "https"):
        address = proxies.get(scheme)
        if address:
            return _parsed("socks5h://" + address[7:] if scheme == "socks" and address.startswith("http://") else address)
    return None


def _parsed(address: str) -> Proxy:
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in _PORTS or parts.hostname is None:
        raise ValueError(f"the proxy {parts.scheme}://{parts.hostname or ''} of the environment cannot be used")
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Proxy(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], user, password)


class _Protocol(asyncio.StreamReaderProtocol):
    """Feeds a reader, and notices all bytes."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        super().__init__(self.reader)
        self.heard: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.heard is not None:
            self.heard()
        super().data_received(data)

    def eof_received(self) -> bool:
        super().eof_received()
        # Nothing is written to a peer that has ended the connection.
        return False


async def _tunnelled(
    proxy: Proxy, origin: Origin, protocol: asyncio.Protocol, secured: dict[str, Any]
) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    transport, first = await loop.create_connection(_Protocol, proxy.host, proxy.port, ssl=_tls_of(proxy))
    try:
        headers = {"Host": origin.tunnel} | proxy.headers
        lines = [f"CONNECT {origin.tunnel} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        transport.write("\r\n".join(lines).encode("ascii"))
        try:
            answer = await first.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise ValueError("the answer of the proxy is too long") from error
        version, _, rest = answer.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest.startswith(b"2"):
            status = answer.split(b"\r\n", 1)[0][:100].decode("latin-1")
            raise ConnectionRefusedError(f"the proxy {proxy.host} does not connect: {status}")
        transport.set_protocol(protocol)
        try:
            secure = await loop.start_tls(transport, protocol, secured["ssl"], server_hostname=origin.host)
        except TypeError as error:
            raise ValueError("TLS to a server through TLS to a proxy needs Python 3.11") from error
        if secure is None:
            raise ConnectionResetError(f"the proxy {proxy.host} has ended the connection")
        protocol.connection_made(secure)
        return secure
    except BaseException:
        transport.abort()
        raise


async def _socks(proxy: Proxy, origin: Origin) -> Any:
    try:
        from python_socks import ProxyType  # type: ignore[import-not-found,unused-ignore]
        from python_socks.async_.asyncio import Proxy as Socks  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError("a SOCKS proxy needs the package python-socks") from error
    kind = ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else ProxyType.SOCKS4
    by_name = proxy.scheme in ("socks5h", "socks4a")
    return await Socks(kind, proxy.host, proxy.port, proxy.user, proxy.password, by_name).connect(
        origin.host, origin.port
    )


def _tls_of(proxy: Proxy) -> ssl.SSLContext | None:
    return _standard_tls() if proxy.scheme == "https" else None


@functools.cache
def _standard_tls() -> ssl.SSLContext:
    """The certificates of the system, which are large and the same for all connections."""
    return ssl.create_default_context()
