"""Who may use which sink."""

import pytest

from toe_async.apis.captures import CollectorRef, S3Ref
from toe_async.sinks.allow import Allowed, AllowList, Refused, SinksPolicy, parse_policy
from toe_async.sinks.endpoints import Endpoint, never_allowed, parse_endpoint
from toe_async.sinks.errors import BadSinksFile

FILE = """
s3:
- endpoint: https://s3.example.org:9000
  namespaces: [shop, "team-*"]
  buckets: [profiles, "p-*"]
  prefixes: ["shop/*", plain]
  region: eu-central-1
  checksum: required-only
- endpoint: http://minio.store.svc:9000
  namespaces: ["*"]
  allowHTTP: true
- endpoint: ""
  namespaces: [aws]
  buckets: [ours]
"""
COLLECTOR = "https://toe-collector.toe-system.svc:8443"
LISTED = S3Ref(bucket="profiles", prefix="shop/web", endpoint="https://s3.example.org:9000")


def allow_list(text: str = FILE) -> AllowList:
    """Make an allow-list from the administrator's file."""
    return AllowList(parse_policy(text), COLLECTOR)


def ref(**changes: str) -> S3Ref:
    """Change the listed sink."""
    fields = {"bucket": LISTED.bucket, "prefix": LISTED.prefix, "endpoint": LISTED.endpoint}
    return S3Ref(**(fields | changes))


def test_a_listed_sink_gets_the_operators_identity_and_the_entrys_settings() -> None:
    """Endpoint, bucket, prefix and namespace all match one entry."""
    allowed = allow_list().allow(LISTED, "shop")
    assert allowed == Allowed(
        endpoint=Endpoint("https", "s3.example.org", 9000),
        region="eu-central-1",
        checksum="required-only",
        use_operator_identity=True,
    )
    assert allow_list().allow(ref(region="us-west-2"), "team-a") == Allowed(
        Endpoint("https", "s3.example.org", 9000), "us-west-2", "required-only", True
    )


@pytest.mark.parametrize(
    ("changes", "namespace"),
    [
        ({"bucket": "others"}, "shop"),
        ({"prefix": "elsewhere"}, "shop"),
        ({"prefix": ""}, "shop"),
        ({"endpoint": "https://s3.example.org"}, "shop"),
        ({"endpoint": "http://s3.example.org:9000"}, "shop"),
        ({"endpoint": "https://s3.example.org.evil.net:9000"}, "shop"),
        ({"endpoint": ""}, "shop"),
        ({}, "default"),
        ({"endpoint": "http://minio.store.svc:9000"}, "shop"),
    ],
)
def test_what_no_entry_has_is_refused_with_the_line_to_add(changes: dict[str, str], namespace: str) -> None:
    """The line can be pasted: with it the same sink is allowed."""
    sink = ref(**changes)
    refused = allow_list().allow(sink, namespace)
    assert isinstance(refused, Refused)
    line = refused.message.split("`")[1]
    assert isinstance(allow_list(f"s3:\n{line}\n").allow(sink, namespace), Allowed)


def test_an_own_key_needs_the_endpoint_alone() -> None:
    """D17: bucket and prefix are the author's own; the operator's identity is not lent."""
    sink = ref(bucket="mine", prefix="x", credentials_secret="key")
    allowed = allow_list().allow(sink, "shop")
    assert isinstance(allowed, Allowed)
    assert not allowed.use_operator_identity
    assert isinstance(allow_list().allow(sink, "default"), Refused)
    assert isinstance(allow_list().allow(ref(endpoint="https://my.store", credentials_secret="key"), "shop"), Refused)


@pytest.mark.parametrize("endpoint", ["", "https://s3.eu-central-1.amazonaws.com", "https://s3.amazonaws.com"])
def test_an_own_key_may_always_go_to_aws_itself(endpoint: str) -> None:
    """D17: no entry is needed, not even a file."""
    sink = S3Ref(bucket="mine", endpoint=endpoint, credentials_secret="key")
    assert isinstance(allow_list("").allow(sink, "any"), Allowed)
    assert isinstance(allow_list("").allow(S3Ref(bucket="mine", endpoint=endpoint), "any"), Refused)


@pytest.mark.parametrize(
    "endpoint", ["http://s3.amazonaws.com", "https://s3.amazonaws.com:444", "https://s3.amazonaws.com.evil.net"]
)
def test_what_only_looks_like_aws_is_not(endpoint: str) -> None:
    """A key goes to AWS by name, port and TLS, or nowhere."""
    sink = S3Ref(bucket="mine", endpoint=endpoint, credentials_secret="key")
    assert isinstance(allow_list("").allow(sink, "any"), Refused)


def test_plain_http_needs_the_administrators_word() -> None:
    """An entry for `*` covers http only when it says so."""
    plain = S3Ref(bucket="abc", endpoint="http://127.0.0.1:8333")
    any_https = 's3: [{endpoint: "*", namespaces: ["*"], buckets: ["*"]}]'
    refused = allow_list(any_https).allow(plain, "x")
    assert isinstance(refused, Refused)
    assert "allowHTTP" in refused.message
    any_http = 's3: [{endpoint: "*", namespaces: ["*"], buckets: ["*"], allowHTTP: true}]'
    assert isinstance(allow_list(any_http).allow(plain, "x"), Allowed)


@pytest.mark.parametrize(
    "changes",
    [
        {"bucket": "arn:aws:s3:us-east-1:123456789012:accesspoint/x"},
        {"bucket": "a"},
        {"bucket": "UPPER"},
        {"bucket": "a..b"},
        {"region": "x.evil.net/"},
        {"prefix": "a/../b"},
        {"prefix": "a\nb"},
    ],
)
def test_names_that_would_mean_something_else_are_refused_even_with_a_star(changes: dict[str, str]) -> None:
    """A bucket or region that chooses a host, a prefix that climbs."""
    star = 's3: [{endpoint: "*", namespaces: ["*"], buckets: ["*"], allowHTTP: true}]'
    assert isinstance(allow_list(star).allow(ref(**changes), "shop"), Refused)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254", "http://169.254.169.254:80/", "http://[::ffff:169.254.169.254]",
        "http://[::169.254.169.254]", "http://[64:ff9b::a9fe:a9fe]", "http://[2002:a9fe:a9fe::1]",
        "http://2852039166", "http://0xA9FEA9FE", "http://0xa9.0xfe.0xa9.0xfe", "http://0251.0376.0251.0376",
        "http://169.254.43518", "http://169.16689662", "http://[fd00:ec2::254]", "http://[fe80::1]",
        "http://[fe80::1%25eth0]", "http://metadata.google.internal", "http://METADATA.google.internal.",
        "http://100.100.100.200", "http://0.0.0.0", "http://[::]", "http://224.0.0.1", "http://168.63.129.16",
        "http://user:pass@s3.example.org", "http://s3.example.org@evil.net", "http://evil.net\\@s3.example.org",
        "http://s3.example.org/path", "http://s3.example.org?x", "http://s3.example.org#x", "http://s3.example.org/#@x",
        "ftp://s3.example.org", "//s3.example.org", "s3.example.org", "http://", "http://:80", "http://a:99999",
        "http://a:0", "http://a b", "http://a\tb", "http://ex\u00e4mple.org", "http://%31%36%39.254.169.254",
        "http://[::1", "http://a..b", "http://-a.org", "http://" + "a" * 64 + ".org",
    ],
)  # fmt: skip
def test_spellings_that_lead_elsewhere_are_refused_even_with_a_star(endpoint: str) -> None:
    """H19, H20: user information, addresses in disguise, metadata services, what parsers read differently."""
    star = 's3: [{endpoint: "*", namespaces: ["*"], buckets: ["*"], allowHTTP: true}]'
    refused = allow_list(star).allow(ref(endpoint=endpoint), "shop")
    assert isinstance(refused, Refused)
    assert "pass" not in refused.message


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://S3.Example.ORG./", "https://s3.example.org"),
        ("https://s3.example.org:443", "https://s3.example.org"),
        ("http://h:8333", "http://h:8333"),
        ("http://[0:0::1]:80", "http://[::1]"),
        ("http://10.0.0.1", "http://10.0.0.1"),
        ("http://my_minio:9000", "http://my_minio:9000"),
    ],
)
def test_an_endpoint_has_one_spelling(text: str, url: str) -> None:
    """Two ways to write one place compare equal."""
    assert parse_endpoint(text).url == url
    assert parse_endpoint(parse_endpoint(text).url) == parse_endpoint(text)


def test_an_address_that_cannot_be_read_is_never_allowed() -> None:
    """The guard fails closed."""
    assert never_allowed("no address")
    assert never_allowed("fe80::1%eth0")
    assert not never_allowed("127.0.0.1")
    assert not never_allowed("10.1.2.3")


@pytest.mark.parametrize(
    "endpoint",
    [
        "", COLLECTOR, "https://toe-collector.toe-system.svc.cluster.local:8443",
        "https://TOE-collector.toe-system.svc.:8443/",
    ],
)  # fmt: skip
def test_the_collector_has_several_names(endpoint: str) -> None:
    """api.md: the spellings of a Service are one endpoint."""
    assert allow_list().allow(CollectorRef(endpoint=endpoint), "any") == Allowed()


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://toe-collector.toe-system.svc", "http://toe-collector.toe-system.svc:8443", "https://evil.net:8443",
        "https://toe-collector.toe-system.svc.cluster.local.evil.net:8443", "https://a@toe-collector.toe-system.svc:8443",
    ],
)  # fmt: skip
def test_another_collector_is_refused(endpoint: str) -> None:
    """H19: a token goes to the administrator's endpoint alone."""
    assert isinstance(allow_list().allow(CollectorRef(endpoint=endpoint), "any"), Refused)


def test_an_empty_file_lists_nothing() -> None:
    """No file, no operator identity for anybody."""
    assert parse_policy("") == parse_policy("{}") == SinksPolicy()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s4: []", "s3"),
        ("s3: [{endpoint: https://a, namespaces: [b], bucket: [c]}]", "buckets"),
        ("s3: [{endpoint: https://a, namespaces: [b], allowHttp: true}]", "allowHTTP"),
        ("s3: [{namespaces: [b]}]", "endpoint"),
        ("s3: [{endpoint: https://a}]", "namespaces"),
        ("s3: [{endpoint: https://a, namespaces: []}]", "namespaces is empty"),
        ("s3: [{endpoint: https://a, namespaces: b}]", "array"),
        ("s3: [{endpoint: http://a, namespaces: [b]}]", "allowHTTP: true"),
        ("s3: [{endpoint: https://u:p@a, namespaces: [b]}]", "user information"),
        ('s3: [{endpoint: https://a, namespaces: ["[b"]}]', "never closes"),
        ("s3: [{endpoint: https://a, namespaces: [b], checksum: none}]", "checksum"),
        ("s3: [{endpoint: https://a, namespaces: [b], region: A.b}]", "region"),
        ("s3: [", "no YAML"),
        ("- a", "sinks file"),
        ("!!python/object/apply:os.system [id]", "no YAML"),
        ("x" * ((1 << 20) + 1), "larger"),
    ],
)
def test_a_bad_file_is_an_error_that_tells_the_way_out(text: str, says: str) -> None:
    """Strict: an unknown key is never ignored, it would be a limit that does not hold."""
    with pytest.raises(BadSinksFile) as caught:
        parse_policy(text)
    assert says in str(caught.value)
