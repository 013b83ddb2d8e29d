"""The API server is reached through a proxy only where that is meant."""

import pytest

from toe_async.kube.proxies import proxy_for

P = "http://proxy:3128"


@pytest.mark.parametrize(
    ("server", "environ", "expected"),
    [
        ("https://k8s.example:6443", {}, None),
        ("https://k8s.example:6443", {"HTTPS_PROXY": P}, P),
        ("https://k8s.example:6443", {"https_proxy": P}, P),
        ("https://k8s.example:6443", {"HTTP_PROXY": P}, None),
        ("http://k8s.example", {"HTTP_PROXY": P}, P),
        ("https://k8s.example", {"HTTPS_PROXY": "proxy:3128"}, P),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": P}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": P}, None),
        ("https://localhost:6443", {"HTTPS_PROXY": P}, None),
        ("https://k8s.example", {"HTTPS_PROXY": P, "NO_PROXY": "*"}, None),
        ("https://k8s.example", {"HTTPS_PROXY": P, "NO_PROXY": "example"}, None),
        ("https://k8s.example", {"HTTPS_PROXY": P, "NO_PROXY": ".example"}, None),
        ("https://k8s.example", {"HTTPS_PROXY": P, "NO_PROXY": "*.example"}, None),
        ("https://K8S.Example.", {"HTTPS_PROXY": P, "no_proxy": "a, k8s.EXAMPLE"}, None),
        ("https://k8s.example", {"HTTPS_PROXY": P, "NO_PROXY": "8s.example"}, P),
        ("https://k8s.example:6443", {"HTTPS_PROXY": P, "NO_PROXY": "k8s.example:6443"}, None),
        ("https://k8s.example:6443", {"HTTPS_PROXY": P, "NO_PROXY": "k8s.example:443"}, P),
        ("https://10.1.2.3:6443", {"HTTPS_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://11.1.2.3:6443", {"HTTPS_PROXY": P, "NO_PROXY": "10.0.0.0/8"}, P),
        ("https://10.1.2.3:6443", {"HTTPS_PROXY": P, "NO_PROXY": "10.1.2.3"}, None),
        ("https://10.1.2.3:6443", {"HTTPS_PROXY": P, "NO_PROXY": "10.1.2.3:6443"}, None),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": P, "NO_PROXY": "fd00::/8"}, None),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": P, "NO_PROXY": "[fd00::1]:6443"}, None),
        ("https://[fd00::1]:6443", {"HTTPS_PROXY": P, "NO_PROXY": "fd00::1"}, None),
        ("https://k8s.example", {"HTTPS_PROXY": P, "NO_PROXY": ",, ,10.0.0.0/99,."}, P),
    ],
)
def test_the_environment_is_read_as_go_programs_read_it(
    server: str, environ: dict[str, str], expected: str | None
) -> None:
    """One row a rule; ranges and subdomains count, loopback never goes through a proxy."""
    assert proxy_for(server, environ) == expected
