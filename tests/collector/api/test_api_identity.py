"""Whose request it is: the right listener, the right certificate, the right headers, and 0 of all forgeries."""

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from tests.collector.api.forging import DAY, Authority, Headers, Pair, exchange, listening, nobody, self_signed
from tests.collector.api.shelf import BASE, SHOP, Reviewer, Shelf
from tests.collector.api.shelf import nobody as unauthenticated
from tests.collector.rig import FakeApi, outage
from toe_async.collector.api.frontproxy import FrontProxy, RequestHeaderConfig, parse
from toe_async.collector.api.identity import Bearer, Identity, ProxyOrBearer, TrustedProxy
from toe_async.collector.api.routes import Api
from toe_async.collector.app import serve
from toe_async.collector.errors import Refused
from toe_async.collector.settings import CollectorSettings, Limits
from toe_async.collector.tls import Certificate
from toe_async.kube.errors import NotFound
from toe_async.kube.requests import Request
from toe_async.lib.clock import SystemClock
from toe_async.telemetry.metrics import CollectorMetrics

ROOT: Headers = [(b"X-Remote-User", b"root"), (b"X-Remote-Group", b"system:masters")]
DOCUMENT = f"{BASE}"


class Cluster(FakeApi):
    """An API server that also keeps the ConfigMap."""

    def __init__(self, data: dict[str, str]) -> None:
        super().__init__()
        self.data, self.reads = data, 0

    async def send(self, request: Request) -> bytes:
        if request.method != "GET":
            return await super().send(request)
        assert request.path == "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
        if self.down is not None:
            raise self.down
        self.reads += 1
        return json.dumps({"kind": "ConfigMap", "apiVersion": "v1", "data": self.data}).encode()


def written(ca: bytes, names: list[str] | None = None) -> dict[str, str]:
    """The ConfigMap as an API server writes it."""
    return {
        "client-ca-file": "-----BEGIN CERTIFICATE-----\nnot looked at\n-----END CERTIFICATE-----\n",
        "requestheader-client-ca-file": ca.decode(),
        "requestheader-allowed-names": json.dumps(["front-proxy-client"] if names is None else names),
        "requestheader-username-headers": '["X-Remote-User"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-uid-headers": '["X-Remote-Uid"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
    }


@pytest.fixture
def front(tmp_path: Path) -> Authority:
    """The CA of the API server's aggregation layer."""
    return Authority(tmp_path, "front-proxy-ca")


@pytest.fixture
def own(tmp_path: Path) -> Authority:
    """The CA of the collector's own certificate and of the clients of its main listener."""
    return Authority(tmp_path, "toe-ca")


class Stage:
    """A shelf with every kind of listener in front of it."""

    def __init__(self, shelf: Shelf, config: RequestHeaderConfig, aggregated: Certificate) -> None:
        self.shelf, self.config, self.aggregated = shelf, config, aggregated
        self.ports: dict[str, int] = {}


@pytest.fixture
async def stage(full: Shelf, front: Authority, own: Authority) -> AsyncIterator[Stage]:
    """Listeners: aggregation, main, main with a client CA."""
    full.reviewer.grant("root", "", "list")
    server = own.issue("collector", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    config = RequestHeaderConfig(SystemClock())
    await config.refresh(Cluster(written(front.pem)))
    assert config.trouble is None
    aggregated, main, client_ca, both = [
        await asyncio.to_thread(Certificate, server.cert, server.key, authorities)
        for authorities in (config.client_ca, None, lambda: own.pem, lambda: own.pem + front.pem)
    ]
    made = Stage(full, config, aggregated)
    listeners: dict[str, tuple[Identity, Certificate | None]] = {
        "aggregation": (FrontProxy(config), aggregated),
        "plain": (Bearer(full.gate), None),
        "main": (Bearer(full.gate), main),
        "client CA": (Bearer(full.gate), client_ca),
        "main that would take the front proxy": (Bearer(full.gate), aggregated),
        "front proxy on the wrong listener": (FrontProxy(config), main),
        "front proxy behind another CA": (FrontProxy(config), both),
        "front proxy without TLS": (FrontProxy(config), None),
    }
    async with AsyncExitStack() as stack:
        for name, (identity, certificate) in listeners.items():
            api = Api(full.holdings, identity, Limits())
            made.ports[name] = await stack.enter_async_context(listening(api, certificate))
        yield made


async def test_the_api_servers_user_is_believed(stage: Stage, front: Authority) -> None:
    """Name, UID, groups and extra go to the authorizer as they were told; headers in any case of letters."""
    client = front.issue("front-proxy-client").client()
    headers: Headers = [
        (b"x-remote-user", "zoë".encode()),
        (b"X-REMOTE-GROUP", b"devs, and ops"),
        (b"X-Remote-Group", b"system:authenticated"),
        (b"X-Remote-Uid", b"u-1"),
        (b"X-Remote-Extra-Scopes", b"a"),
        (b"X-Remote-Extra-Scopes", b"b"),
        (b"X-Remote-Extra-example.com%2Fteam", b"pay"),
    ]
    status, body = await exchange(stage.ports["aggregation"], client, SHOP, headers)
    assert (status, json.loads(body)["reason"]) == (403, "Forbidden")
    asked = stage.shelf.reviewer.asked[-1]
    assert asked["user"] == "zoë"
    assert asked["uid"] == "u-1"
    assert asked["groups"] == ["devs, and ops", "system:authenticated"]
    assert asked["extra"] == {"scopes": ["a", "b"], "example.com/team": ["pay"]}
    assert (await exchange(stage.ports["aggregation"], client, SHOP, ROOT))[0] == 200


async def test_the_same_headers_on_any_other_listener_are_worth_nothing(
    stage: Stage, front: Authority, own: Authority
) -> None:
    """Even with the API server's own certificate."""
    for name, port in stage.ports.items():
        if name == "aggregation":
            continue
        for pair in (front.issue("front-proxy-client"), own.issue("front-proxy-client")):
            client = None if name in {"plain", "front proxy without TLS"} else pair.client()
            assert (await exchange(port, client, SHOP, ROOT))[0] in {0, 401}, name


# -- forgeries --------------------------------------------------------------------------------------------------------


def header_sets() -> Iterator[Headers]:
    """What somebody may try who wants to be root."""
    user = ROOT[0]
    yield ROOT
    yield [user]
    yield [(b"x-remote-user", b"root")]
    yield [(b"X-REMOTE-USER", b"system:kube-aggregator"), (b"X-Remote-Group", b"system:masters")]
    yield [*ROOT, user]
    yield [*ROOT, (b"X-Remote-User", b"system:admin")]
    yield [user, (b"X-Remote-Group", b"a,system:masters")]
    yield [user, *[(b"X-Remote-Group", b"system:masters")] * 8]
    yield [user, (b"X-Remote-Extra-Scopes", b"*"), (b"X-Remote-Uid", b"0")]
    yield [*ROOT, (b"X-Forwarded-Client-Cert", b'Subject="CN=front-proxy-client"')]
    yield [*ROOT, (b"X-Forwarded-For", b"127.0.0.1"), (b"Forwarded", b"for=127.0.0.1"), (b"X-Real-IP", b"127.0.0.1")]
    yield [*ROOT, (b"X-Client-Verify", b"SUCCESS"), (b"Ssl-Client-Subject-Dn", b"CN=front-proxy-client")]
    yield [*ROOT, (b"Authorization", b"Bearer made.up.token")]
    yield [*ROOT, (b"Authorization", b"Basic cm9vdDpyb290")]
    yield [*ROOT, (b"Impersonate-User", b"root"), (b"Impersonate-Group", b"system:masters")]


SETS = tuple(header_sets())
WITHOUT_USER: tuple[Headers, ...] = (
    [],
    [ROOT[1]],
    [(b"X-Remote-User", b"")],
    [(b"X-Remote-User", b"   ")],
    [(b"X-Remote-User", b""), ROOT[1]],
    [(b"X-Remote-User", b""), ROOT[0]],
    [ROOT[0], (b"X-Remote-User", b"")],
    [ROOT[0], ROOT[0]],
    [(b"X-Remote-User", b"a"), (b"x-remote-user", b"root")],
    [(b"X_Remote_User", b"root")],
    [(b"X-Remote-Username", b"root")],
    [(b"Remote-User", b"root")],
    [(b"X-Remote-User-", b"root")],
    [(b"X-Remote-User", b"\xff\xferoot")],
    [(b"X-Remote-User", "ro\u202eot".encode())],
    [(b"X-Remote-User", "root\u0000".encode())],
    [(b"X-Remote-User", b"r" * 1025)],
    [ROOT[0], (b"X-Remote-Group", b"\xff")],
    [ROOT[0], (b"X-Remote-Extra-\xff", b"a")],
    [ROOT[0], (b"X-Remote-Extra-a", b"\xc3\x28")],
    [ROOT[0], (b"X-Remote-Extra-%00", b"a")],
    [ROOT[0], (b"X-Remote-Uid", b"1"), (b"X-Remote-Uid", b"2")],
    [(b"Authorization", b"Bearer TOKEN")],
    [(b"X-Remote-User ", b"root")],
    [(b" X-Remote-User", b"root")],
)  # fmt: skip


def bad_pairs(folder: Path, front: Authority, own: Authority) -> dict[str, Pair | None]:
    """Certificates that do not make an API server."""
    name, cn, ou = "front-proxy-client", NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
    return {
        "none": None,
        "another CA": Authority(folder, "front-proxy-ca").issue(name),
        "our own CA": own.issue(name),
        "self-signed": self_signed(folder, name),
        "expired": front.issue(name, begin=-2 * DAY, end=-DAY / 24),
        "not yet valid": front.issue(name, begin=DAY / 24),
        "of a server": front.issue(name, usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "another name": front.issue("kube-apiserver-kubelet-client"),
        "the name in capitals": front.issue("Front-Proxy-Client"),
        "the name and more": front.issue("front-proxy-client.evil"),
        "the name and a space": front.issue("front-proxy-client "),
        "the name with a zero": front.issue("front-proxy-client\x00.evil"),
        "two names": front.issue("", parts=[(cn, name), (cn, "other")]),
        "two names the other way": front.issue("", parts=[(cn, "other"), (cn, name)]),
        "the name as a unit": front.issue("", parts=[(ou, name)]),
        "no name": front.issue("", parts=[]),
    }


@pytest.mark.slow
async def test_of_all_forgeries_none_is_believed(
    stage: Stage, tmp_path: Path, front: Authority, own: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """16 certificates with 15 sets of headers, 25 odd sets with the right one, and every set on the main listeners."""
    tried, accepted = 0, []
    aggregation = stage.ports["aggregation"]
    clients = {name: pair.client() if pair else nobody() for name, pair in bad_pairs(tmp_path, front, own).items()}
    right = front.issue("front-proxy-client").client()
    cases: list[tuple[str, int, ssl.SSLContext | None, Headers]] = [
        (name, aggregation, client, headers) for (name, client), headers in itertools.product(clients.items(), SETS)
    ]
    token = stage.shelf.ada.encode()
    for headers in WITHOUT_USER:
        sent = [(key, value.replace(b"TOKEN", token)) for key, value in headers]
        cases.append(("right certificate", aggregation, right, sent))
    for headers in SETS:
        cases += [
            ("main", stage.ports["main"], right, headers),
            ("plain", stage.ports["plain"], None, headers),
            ("client CA", stage.ports["client CA"], own.issue("auth-proxy").client(), headers),
        ]
    for name, port, client, headers in cases:
        status, body = await exchange(port, client, DOCUMENT, headers)
        tried += 1
        if status not in {0, 400, 401}:
            accepted.append((name, headers, status, body[:200]))
    assert not accepted
    assert tried >= 300
    assert not stage.shelf.reviewer.asked
    assert (await exchange(aggregation, right, DOCUMENT, ROOT))[0] == 200
    with capsys.disabled():
        print(f"\n{tried} forged identities, {len(accepted)} accepted")


async def test_a_token_decides_on_the_main_listener_whatever_the_headers_say(stage: Stage) -> None:
    """The rights are the token's, and so is the name in the refusal."""
    reviewer = stage.shelf.reviewer
    eve = reviewer.token("eve").encode()
    for headers in SETS[:12]:
        status, body = await exchange(
            stage.ports["main"], nobody(), SHOP, [*headers, (b"Authorization", b"Bearer " + eve)]
        )
        assert status == 403
        assert 'User "eve"' in json.loads(body)["message"]
        assert reviewer.asked[-1]["groups"] == ["system:authenticated"]


# -- the ConfigMap ----------------------------------------------------------------------------------------------------


async def test_any_name_will_do_when_the_cluster_names_none(stage: Stage, front: Authority) -> None:
    """As in an API server: the CA alone decides then."""
    await stage.config.refresh(Cluster(written(front.pem, names=[])))
    for pair in (front.issue("whoever"), front.issue("", parts=[])):
        assert (await exchange(stage.ports["aggregation"], pair.client(), DOCUMENT, ROOT))[0] == 200


async def test_other_header_names_are_read_as_the_cluster_has_them(stage: Stage, front: Authority) -> None:
    """The usual ones mean nothing then; the first header that has a name counts."""
    more = {
        "requestheader-username-headers": '["X-A", "X-B"]',
        "requestheader-group-headers": '["X-G", "X-H"]',
        "requestheader-extra-headers-prefix": '["X-E-"]',
    }
    await stage.config.refresh(Cluster(written(front.pem) | more))
    client = front.issue("front-proxy-client").client()
    assert (await exchange(stage.ports["aggregation"], client, SHOP, ROOT))[0] == 401
    sent: Headers = [(b"X-B", b"bea"), (b"X-H", b"h"), (b"X-G", b"g"), (b"X-E-K", b"v"), *ROOT]
    assert (await exchange(stage.ports["aggregation"], client, SHOP, sent))[0] == 403
    asked = stage.shelf.reviewer.asked[-1]
    assert (asked["user"], asked["groups"], asked["extra"]) == ("bea", ["g", "h"], {"k": ["v"]})


async def test_a_connection_of_the_ca_before_is_not_believed(stage: Stage, front: Authority, tmp_path: Path) -> None:
    """The new one is as soon as the listener's certificate was looked at again."""
    renewed = Authority(tmp_path, "front-proxy-ca")
    await stage.config.refresh(Cluster(written(renewed.pem)))
    old, new = (one.issue("front-proxy-client").client() for one in (front, renewed))
    assert (await exchange(stage.ports["aggregation"], old, DOCUMENT, ROOT))[0] == 401
    await asyncio.to_thread(stage.aggregated.reload)
    assert (await exchange(stage.ports["aggregation"], old, DOCUMENT, ROOT))[0] == 0
    assert (await exchange(stage.ports["aggregation"], new, DOCUMENT, ROOT))[0] == 200


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"requestheader-client-ca-file": ""}, "requestheader-client-ca-file"),
        ({"requestheader-client-ca-file": "no certificate"}, "requestheader-client-ca-file"),
        ({"requestheader-username-headers": "[]"}, "requestheader-username-headers"),
        ({"requestheader-username-headers": '["", " "]'}, "requestheader-username-headers"),
        ({"requestheader-username-headers": "X-Remote-User"}, "requestheader-username-headers"),
        ({"requestheader-allowed-names": '"front-proxy-client"'}, "requestheader-allowed-names"),
        ({"requestheader-group-headers": "[1]"}, "requestheader-group-headers"),
        ({"requestheader-extra-headers-prefix": "{"}, "requestheader-extra-headers-prefix"),
    ],
)
def test_a_config_map_that_says_too_little_is_refused_by_the_key(
    front: Authority, change: dict[str, str], told: str
) -> None:
    """Guessing would be believing."""
    with pytest.raises(ValueError, match=told):
        parse(written(front.pem) | change)


def test_absent_lists_are_empty(front: Authority) -> None:
    """An API server before 1.32 writes no UID headers, and one without names writes none."""
    data = written(front.pem)
    del data["requestheader-uid-headers"], data["requestheader-allowed-names"]
    found = parse(data)
    assert (found.uid, found.names) == ((), frozenset())


class Minutes(SystemClock):
    """A monotonic clock that is set by hand."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


async def test_while_it_cannot_be_read_nobody_is_believed_and_the_way_out_is_said(
    full: Shelf, front: Authority, own: Authority
) -> None:
    """503, without asking for a certificate that could not be judged; what was read counts for five minutes more."""
    server = own.issue("collector", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    clock = Minutes()
    config = RequestHeaderConfig(clock)
    cluster = Cluster(written(front.pem))
    cluster.down = NotFound(404, "NotFound", "no such ConfigMap")
    await config.refresh(cluster)
    certificate = await asyncio.to_thread(Certificate, server.cert, server.key, config.client_ca)
    client = front.issue("front-proxy-client").client()
    async with listening(Api(full.holdings, FrontProxy(config), Limits()), certificate) as port:
        status, body = await exchange(port, client, DOCUMENT, ROOT)
        error = json.loads(body)
        assert (status, error["reason"]) == (503, "ServiceUnavailable")
        assert "extension-apiserver-authentication-reader" in error["message"]
        cluster.down = None
        await config.refresh(cluster)
        assert (await exchange(port, client, DOCUMENT, ROOT))[0] == 401
        await asyncio.to_thread(certificate.reload)
        assert (await exchange(port, client, DOCUMENT, ROOT))[0] == 200
        cluster.down = outage()
        clock.seconds = 299.0
        await config.refresh(cluster)
        assert "connection refused" in str(config.trouble)
        assert (await exchange(port, client, DOCUMENT, ROOT))[0] == 200
        clock.seconds = 301.0
        assert (await exchange(port, client, DOCUMENT, ROOT))[0] == 503


@pytest.mark.looptime
async def test_it_is_read_every_minute_and_sooner_while_it_cannot_be(front: Authority) -> None:
    """One request each time."""
    cluster = Cluster(written(front.pem))
    config = RequestHeaderConfig(SystemClock())
    cluster.down = outage()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(config.keep(cluster))
        await asyncio.sleep(12)
        assert config.client_ca() is None
        cluster.down = None
        await asyncio.sleep(5)
        assert config.client_ca() == front.pem.strip()
        assert cluster.reads == 1
        await asyncio.sleep(180)
        assert cluster.reads == 4
        task.cancel()


# -- the whole collector ---------------------------------------------------------------------------------------------


async def test_the_collector_serves_the_api_server_on_an_address_of_its_own(
    tmp_path: Path, front: Authority, own: Authority
) -> None:
    """A user of 500 groups too, each of which is a header; uploads and pages are not served there."""
    server = own.issue("collector", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    cluster = Cluster(written(front.pem))
    cluster.grant("zoe", "shop", "list")
    wanted = CollectorSettings(
        root=tmp_path / "store",
        operator_users=frozenset(),
        uploader_users=frozenset(),
        listen="127.0.0.1:0",
        aggregation_listen="127.0.0.1:0",
        tls_cert=server.cert,
        tls_key=server.key,
    )
    client = front.issue("front-proxy-client").client()
    groups: Headers = [(b"X-Remote-Group", b"team-%d" % number) for number in range(500)]
    async with serve(wanted, cluster, SystemClock(), CollectorMetrics(CollectorRegistry())) as served:
        port = served.aggregation_port
        assert port is not None
        async with asyncio.timeout(5):
            while (answer := await exchange(port, client, SHOP, [(b"X-Remote-User", b"zoe"), *groups]))[0] == 503:
                await asyncio.sleep(0.01)
        assert (answer[0], json.loads(answer[1])["items"]) == (200, [])
        assert (await exchange(served.port, nobody(), SHOP, [(b"X-Remote-User", b"zoe")]))[0] == 401
        for path in ("/", "/v1/captures"):
            assert (await exchange(port, client, path, ROOT))[0] == 404


# -- discovery --------------------------------------------------------------------------------------------------------


async def test_anonymous_callers_learn_nothing_of_the_group(full: Shelf) -> None:
    """As system:discovery is not theirs in an API server."""
    api = Api(full.holdings, unauthenticated(), Limits())
    async with listening(api, None) as port:
        for path in ("/apis", "/apis/artifacts.toe.run", DOCUMENT, "/openapi/v2", "/openapi/v3", f"/openapi/v3{BASE}"):
            status, body = await exchange(port, None, path, [])
            assert (status, json.loads(body)["reason"]) == (403, "Forbidden")
            assert (await full.ask("GET", path, None))[0] == 401


# -- an authenticating proxy in front of the main listener ------------------------------------------------------------


class Peer(ssl.SSLObject):
    """A TLS connection whose client showed this certificate and was verified."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def getpeercert(self, binary_form: bool = False) -> Any:
        return {"subject": tuple((("commonName", name),) for name in self._names)} if self._names else {}


class Wire:
    """A transport from some address."""

    def __init__(self, address: Any, tls: Peer | None = None) -> None:
        self._told = {"peername": address, "ssl_object": tls}

    def get_extra_info(self, name: str) -> Any:
        return self._told[name]


class Asked:
    """As much of a request as tells who sends it."""

    def __init__(self, wire: Wire | None, **headers: str) -> None:
        self.transport = wire
        self.headers = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


def named(request: Asked) -> str | None:
    """The user whom the proxy `auth-proxy` names."""
    user = TrustedProxy(frozenset({"auth-proxy"})).user(cast("web.Request", request))
    return user.username if user is not None else None


@pytest.mark.parametrize(
    ("wire", "believed"),
    [
        (Wire(("127.0.0.1", 1)), True),
        (Wire(("127.9.9.9", 1)), True),
        (Wire(("::1", 1, 0, 0)), True),
        (Wire(("::ffff:127.0.0.1", 1, 0, 0)), True),
        (Wire(("10.0.0.1", 1), Peer("auth-proxy")), True),
        (Wire(("10.0.0.1", 1)), False),
        (Wire(("10.0.0.1", 1), Peer()), False),
        (Wire(("10.0.0.1", 1), Peer("other")), False),
        (Wire(("10.0.0.1", 1), Peer("auth-proxy", "other")), False),
        (Wire(("10.0.0.1", 1), Peer("other", "auth-proxy")), False),
        (Wire(("::ffff:10.0.0.1", 1, 0, 0)), False),
        (Wire(("fe80::1%lo", 1, 0, 1)), False),
        (Wire(("128.0.0.1", 1)), False),
        (Wire(("127.0.0.1.evil", 1)), False),
        (Wire(("", 1)), False),
        (Wire(None), False),
        (Wire(""), False),
        (None, False),
    ],
)
def test_a_proxy_is_believed_from_this_machine_or_by_its_certificate(wire: Wire | None, believed: bool) -> None:
    """Nothing else makes a header true."""
    assert named(Asked(wire, X_Remote_User="root")) == ("root" if believed else None)
    assert named(Asked(wire)) is None


def test_a_proxy_that_names_two_users_names_none() -> None:
    """401, not the first of them."""
    asked = Asked(Wire(("127.0.0.1", 1)), X_Remote_User="ada")
    asked.headers.add("x-remote-user", "root")
    with pytest.raises(Refused, match="more than one user"):
        named(asked)


async def test_behind_a_proxy_tokens_still_work(full: Shelf) -> None:
    """A request without the proxy's header needs a token; with both the proxy's user counts."""
    identity = ProxyOrBearer(TrustedProxy(frozenset()), full.gate)
    assert isinstance(full.reviewer, Reviewer)
    async with listening(Api(full.holdings, identity, Limits()), None) as port:
        token = (b"Authorization", b"Bearer " + full.ada.encode())
        assert (await exchange(port, None, SHOP, []))[0] == 401
        assert (await exchange(port, None, SHOP, [token]))[0] == 200
        assert (await exchange(port, None, SHOP, [token, (b"X-Remote-User", b"eve")]))[0] == 403
        full.reviewer.grant("bob", "shop", "list")
        assert (await exchange(port, None, SHOP, [(b"X-Remote-User", b"bob")]))[0] == 200
