"""Cells of tables: ages and JSONPath."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from toe_async.lib.clock import rfc3339
from toe_async.sandbox.tables import age, json_path

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (365, "6m5s"),
        (3599, "59m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 65 * 60, "8h"),
        (47 * 3600, "47h"),
        (50 * 3600, "2d2h"),
        (9 * 86400, "9d"),
        (-60, "<invalid>"),
    ],
)
def test_ages_read_as_kubectl_writes_them(seconds: int, expected: str) -> None:
    assert age(rfc3339(NOW - timedelta(seconds=seconds)), NOW) == expected


OBJECT = {
    "spec": {"a": 1, "list": [{"n": "x"}, {"n": "y"}]},
    "metadata": {"labels": {"app.kubernetes.io/name": "z"}},
    "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Degraded", "status": "True"}]},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".spec.a", 1),
        (".spec.nope", None),
        (".spec.list[1].n", "y"),
        (".spec.list[-1].n", "y"),
        (".spec.list[*].n", "x"),
        (".spec.list[7].n", None),
        ('.status.conditions[?(@.type=="Degraded")].status', "True"),
        (".status.conditions[?(@.type=='Ready')].status", "False"),
        (".status.conditions[?(@.type=='Nope')].status", None),
        (r".metadata.labels.app\.kubernetes\.io/name", "z"),
        (".metadata.labels['app.kubernetes.io/name']", "z"),
    ],
)
def test_json_path_finds_what_printer_columns_name(path: str, expected: Any) -> None:
    assert json_path(OBJECT, path) == expected
