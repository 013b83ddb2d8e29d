"""Where a sink may be: endpoints read strictly, and addresses that no sink ever has. Pure.

An endpoint is a scheme, a host and a port, nothing else. What a URL parser, a resolver and a proxy could read
differently (user information, numbers that are addresses in disguise, backslashes, zones) is refused, not guessed.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from msgspec import Struct

_DEFAULT_PORTS = {"https": 443, "http": 80}
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AWS = re.compile(r"s3[.-]?[a-z0-9.-]*\.amazonaws\.com(\.cn)?")

# Metadata services hand out credentials to whoever asks. Link-local holds AWS, Azure, GCP, ECS and Pod Identity; the
# others are AWS over IPv6, Alibaba, Oracle, and Azure's wire server.
_NEVER = (
    IPv4Network("169.254.0.0/16"),
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::/32"),
    IPv4Network("100.100.100.200/32"),
    IPv4Network("192.0.0.192/32"),
    IPv4Network("168.63.129.16/32"),
)
_NEVER_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})


class Endpoint(Struct, frozen=True):
    """A place on the network in one spelling: lower case, the port always there, no final dot."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the URL to connect to, without a final slash; the default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}")

    @property
    def is_aws(self) -> bool:
        """Tell whether this is S3 of AWS itself, by name and over TLS."""
        return self.scheme == "https" and self.port == 443 and _AWS.fullmatch(self.host) is not None


def parse_endpoint(text: str) -> Endpoint:
    """Read `https://host[:port]`.

    Raises:
        ValueError: anything else, or a host that is never allowed. The message never repeats user information.
    """
    if not text.isascii() or not text.isprintable() or any(char in text for char in "\\ %\"'<>"):
        raise ValueError("the endpoint holds characters that no host has; write it like https://s3.example.org:9000")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError("the endpoint is no URL; write it like https://s3.example.org:9000") from error
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("the endpoint must begin with https:// (or http:// where the administrator allows it)")
    if "@" in parts.netloc:
        raise ValueError("the endpoint holds user information; keys belong into credentialsSecret, never into a URL")
    if parts.path not in {"", "/"} or "?" in text or "#" in text:
        raise ValueError("the endpoint must be a host and a port only; a path belongs into prefix")
    host = _host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if port == 0:
        raise ValueError("the endpoint's port is 0")
    return Endpoint(parts.scheme, host, port)


def never_allowed(address: str) -> bool:
    """Tell whether an IP address is one that no sink has: metadata services, link-local, unspecified, multicast."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    return any(
        one.is_unspecified or one.is_multicast or any(one in net for net in _NEVER if net.version == one.version)
        for one in _readings(ip)
    )


def _readings(ip: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    # One IPv6 address can carry an IPv4 address that a gateway or the kernel connects to.
    readings = [ip]
    if isinstance(ip, IPv6Address):
        tail = IPv4Address(int(ip) & 0xFFFFFFFF)
        if ip.ipv4_mapped or ip in IPv6Network("64:ff9b::/96") or ip in IPv6Network("::/96"):
            readings.append(tail)
        if ip.sixtofour:
            readings.append(ip.sixtofour)
    return readings


def _host(host: str, *, bracketed: bool) -> str:
    name = host.lower().removesuffix(".")
    if bracketed:
        try:
            address: IPv4Address | IPv6Address = IPv6Address(name)
        except ValueError as error:
            raise ValueError("the endpoint's host is no IPv6 address without a zone") from error
    elif _NUMBER.fullmatch(name.rpartition(".")[2]):
        # 2852039166, 0xA9FEA9FE and 169.254.43518 are addresses to some resolvers.
        try:
            address = IPv4Address(name)
        except ValueError as error:
            raise ValueError("the endpoint's host ends in a number but is no dotted IPv4 address") from error
    else:
        if len(name) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
            raise ValueError("the endpoint's host is no DNS name")
        if name in _NEVER_NAMES:
            raise ValueError(f"{name} is a metadata service, which is never a sink")
        return name
    if never_allowed(str(address)):
        raise ValueError(f"{address} is link-local or a metadata service, which is never a sink")
    return str(address)
