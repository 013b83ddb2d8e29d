"""The URL of a store: what it may say, and what is told when it says something else."""

import pytest

from toe_async.collector.errors import SettingsError
from toe_async.collector.store_url import S3Place, parse_store_url
from toe_async.sinks.endpoints import Endpoint


@pytest.mark.parametrize(
    ("text", "place", "key"),
    [
        ("s3://profiles", S3Place(bucket="profiles"), "x/y"),
        ("s3://profiles/", S3Place(bucket="profiles"), "x/y"),
        ("s3://profiles//a//b/", S3Place(bucket="profiles", prefix="a/b"), "a/b/x/y"),
        (
            "s3://my.bucket/toe?endpoint=https://s3.example.org:9000&region=eu-central-1&addressing=virtual",
            S3Place(
                bucket="my.bucket",
                prefix="toe",
                endpoint=Endpoint("https", "s3.example.org", 9000),
                region="eu-central-1",
                addressing="virtual",
            ),
            "toe/x/y",
        ),
        (
            "s3://profiles?endpoint=http%3A%2F%2F127.0.0.1%3A8333&http=allow&checksum=required-only",
            S3Place(bucket="profiles", endpoint=Endpoint("http", "127.0.0.1", 8333), checksum="required-only"),
            "x/y",
        ),
    ],
)
def test_a_place_is_read(text: str, place: S3Place, key: str) -> None:
    """Prefix without empty parts; TLS unless said otherwise."""
    assert parse_store_url(text) == place
    assert place.key("x", "y") == key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "only s3:// is known"),
        ("/data", "only s3:// is known"),
        ("gs://bucket", "only s3:// is known"),
        ("s3://key:secret@bucket", "holds user information; keys come from a workload identity"),
        ("s3://", "3 to 63 of a-z, 0-9, dot and hyphen"),
        ("s3://Bucket", "3 to 63"),
        ("s3://a..b", "3 to 63"),
        ("s3://bucket:9000/x", "3 to 63"),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint/x", "3 to 63"),
        ("s3://bucket/a/../b", "no part that is . or .."),
        ("s3://bucket/a/%2e%2e/b", "no part that is . or .."),
        ("s3://bucket/.toe", "no part that is . or .."),
        ("s3://bucket/a b", "may have letters, digits"),
        ("s3://bucket/a%2Fb%00", "may have letters, digits"),
        ("s3://bucket/" + "x" * 201, "longer than 200"),
        ("s3://bucket?endpoint=http://s3.example.org", "not encrypted; use https://, or add http=allow"),
        ("s3://bucket?endpoint=s3.example.org", "must begin with https://"),
        ("s3://bucket?endpoint=https://u:p@s3.example.org", "user information"),
        ("s3://bucket?endpoint=https://169.254.169.254", "metadata service"),
        ("s3://bucket?endpoint=https://s3.example.org/path", "host and a port only"),
        ("s3://bucket?http=yes", "http must be allow"),
        ("s3://bucket?checksum=none", "checksum must be auto or required-only"),
        ("s3://bucket?addressing=host", "addressing must be auto or path or virtual"),
        ("s3://bucket?region=eu/../x", "region is no region's name"),
        ("s3://bucket?region=a&region=b", "an option twice"),
        ("s3://bucket?secret_key=hunter2", "unknown option; known are addressing, checksum, endpoint, http, region"),
        ("s3://bucket?hunter2", "it is no URL"),
        ("s3://bucket/x#y", "characters that no store has"),
        ("s3://[::1/x", "it is no URL"),
    ],
)
def test_what_is_no_place_is_refused_with_the_way_out(text: str, says: str) -> None:
    """One sentence, an example, and nothing repeated that could be a key."""
    with pytest.raises(SettingsError) as raised:
        parse_store_url(text)
    message = str(raised.value)
    assert message.startswith("the store's URL cannot be used: ")
    assert says in message
    assert "write it like s3://bucket/prefix" in message
    assert not any(secret in message for secret in ("hunter2", "secret@", "u:p"))
