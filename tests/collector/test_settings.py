"""A collector that would be open wider than meant does not start, and says why in one sentence."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from toe_async.collector.errors import SettingsError
from toe_async.collector.settings import Address, CollectorSettings, check, parse_address

BASE = CollectorSettings(root=Path("/data"), operator_users=frozenset({"o"}), uploader_users=frozenset({"u"}))
PAIR = {"tls_cert": Path("tls.crt"), "tls_key": Path("tls.key")}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        (PAIR, None),
        ({"insecure_http": True, "listen": "127.0.0.1:0"}, None),
        ({"insecure_http": True, "listen": "[::1]:8080"}, None),
        ({"insecure_http": True, "listen": "localhost:8080"}, None),
        ({}, "key pair is missing"),
        ({"tls_cert": Path("tls.crt")}, "key pair is missing"),
        ({"insecure_http": True}, "loopback only"),
        ({"insecure_http": True, "listen": "0.0.0.0:8443"}, "loopback only"),
        ({"insecure_http": True, "listen": "10.0.0.1:8443"}, "loopback only"),
        ({"insecure_http": True, "listen": "127.0.0.1:0", **PAIR}, "exclude"),
        ({"listen": "example.org:8443", **PAIR}, "no address"),
        ({"listen": "8443", **PAIR}, "no address"),
        ({"metrics_address": ":99999", **PAIR}, "no address"),
    ],
)
def test_settings_are_checked_before_anything_starts(changes: dict[str, Any], word: str | None) -> None:
    """None: fine."""
    wanted = replace(BASE, **changes)
    if word is None:
        check(wanted)
    else:
        with pytest.raises(SettingsError, match=word):
            check(wanted)


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        (":8443", Address("", 8443), False),
        ("127.0.0.2:1", Address("127.0.0.2", 1), True),
        ("[::]:1", Address("::", 1), False),
    ],
)
def test_addresses(text: str, address: Address, loopback: bool) -> None:
    """Host and port, and whether only this machine can connect."""
    assert parse_address(text) == address
    assert address.loopback is loopback
