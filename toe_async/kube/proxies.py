"""Whether an API server is reached through a proxy; decided here, so that no library guesses from the environment.

aiohttp would also read ~/.netrc and does not know address ranges in NO_PROXY, which most clusters write because Go
programs know them; a proxy in a pod's environment would then capture the traffic to the API server.
"""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit


def proxy_for(server: str, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL for a server's URL by HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or None for a direct connection.

    Loopback is always direct. An entry of NO_PROXY is ``*``, an address, a range in CIDR form, or a domain, which
    covers its subdomains too; addresses and domains may end in a port.
    """
    url = urlsplit(server)
    host, port = (url.hostname or "").lower().rstrip("."), url.port or (443 if url.scheme == "https" else 80)
    variable = "https_proxy" if url.scheme == "https" else "http_proxy"
    proxy = environ.get(variable.upper()) or environ.get(variable)
    address = _address(host)
    if not proxy or host == "localhost" or (address is not None and address.is_loopback):
        return None
    exempt = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if any(_covers(entry.strip().lower(), host, port, address) for entry in exempt.split(",")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _covers(entry: str, host: str, port: int, address: IPv4Address | IPv6Address | None) -> bool:
    if entry in {"", "*"}:
        return entry == "*"
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and (name.count(":") == 0 or name.endswith("]")):
        if int(number) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    if (wanted := _address(entry)) is not None:
        return wanted == address
    domain = entry.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
