"""What the shipped tools let authors ask for: everything that is promised, nothing that writes or executes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from directapi import DirectApi
from hypothesis import given
from hypothesis import strategies as st

from toe_async.apis.powertool import PowerTool, Tool, decode_power_tool
from toe_async.apis.powertoolconfig import PowerToolConfig, decode_power_tool_config
from toe_async.capture.arguments import render
from toe_async.capture.refusals import Refused
from toe_async.capture.security import chosen, level_faults, security_context
from toe_async.capture.toolconfig import ToolPolicy, faults
from toe_async.lib.clock import SystemClock

AGENTS = Path(__file__).parents[2] / "agents"
FOLDERS = ("aperf", "jvm", "perf", "py-spy", "strace", "sysreport", "tcpdump")


def documents(kind: str, *folders: str) -> list[dict[str, Any]]:
    """All objects of a kind in the folders of tools."""
    files = [file for folder in folders for file in sorted((AGENTS / folder).glob("*.yaml"))]
    every = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    return [one for one in every if one["kind"] == kind]


CONFIGS: dict[str, PowerToolConfig] = {
    one["spec"]["name"]: decode_power_tool_config(msgspec.json.encode(one))
    for one in documents("PowerToolConfig", *FOLDERS)
}
EXAMPLES: list[PowerTool] = [decode_power_tool(msgspec.json.encode(one)) for one in documents("PowerTool", *FOLDERS)]


def rendered(name: str, *args: str, preset: Any = None) -> tuple[str, ...] | Refused:
    return render(CONFIGS[name].spec, Tool(name=name, duration="10s", args=args, resolution_preset=preset))


@pytest.mark.parametrize("folder", [*FOLDERS, "chaos"])
def test_what_a_folder_ships_is_taken_by_an_api_server(folder: str) -> None:
    """PowerToolConfigs and examples, by the CRDs with their rules; nothing of them is pruned."""
    api = DirectApi(SystemClock())
    api.install("toe-system", "shop")
    plurals = {"PowerToolConfig": ("powertoolconfigs", "toe-system"), "PowerTool": ("powertools", "shop")}
    for kind, (plural, namespace) in plurals.items():
        found = documents(kind, folder)
        assert found
        for one in found:
            stored = api.create(plural, namespace, one)
            assert within(one["spec"], stored["spec"])


def within(asked: Any, stored: Any) -> bool:
    """Whether everything that was asked is stored; defaults may be there beside it."""
    if isinstance(asked, dict):
        return all(key in stored and within(value, stored[key]) for key, value in asked.items())
    if isinstance(asked, list):
        return len(asked) == len(stored) and all(map(within, asked, stored))
    return bool(asked == stored)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_tool_is_ready_and_lists_what_authors_may_give(name: str) -> None:
    assert faults(CONFIGS[name], CONFIGS.values(), ToolPolicy()) == ()
    spec = CONFIGS[name].spec
    assert spec.allowed_args is not None
    assert spec.max_duration
    assert spec.upload_limit


def test_every_compatible_tool_exists_and_says_so_too() -> None:
    for name, config in CONFIGS.items():
        for other in config.spec.compatible_with:
            assert name in CONFIGS[other].spec.compatible_with, f"{name} and {other}"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.metadata.name)
def test_an_example_gives_an_argument_vector(example: PowerTool) -> None:
    found = render(CONFIGS[example.spec.tool.name].spec, example.spec.tool)
    assert not isinstance(found, Refused), found


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.spec.presets])
def test_every_preset_comes_between_the_administrators_and_the_authors_arguments(name: str) -> None:
    spec = CONFIGS[name].spec
    for preset in spec.presets:
        found = rendered(name, preset=preset.name)
        assert not isinstance(found, Refused)
        assert found[len(found) - len(preset.args) :] == preset.args


TAKEN: dict[str, list[tuple[str, ...]]] = {
    "tcpdump": [
        ("-i", "any", "port 80 or port 443"),
        ("tcp and not port 22",),
        ("-i", "eth0", "-s", "128", "-c", "1000", "-nn"),
        ("tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src and dst net 10.0.0.0/8",),
        ("host", "10.1.2.3", "and", "port", "443"),
        ("(host a or host b) and port 53",),
        ("not port 22",),
        ("ip6 host fd00::1",),
        (),
    ],
    "strace": [
        ("-e", "trace=openat,read"),
        ("-e", "trace=%network,%file"),
        ("-c",),
        ("-T", "-y"),
        ("-e", "trace=!futex"),
    ],
    "perf": [("--frequency", "199"), ("--frequency=49", "--event", "cpu-clock"), ("--call-graph", "fp")],
    "py-spy": [("--rate", "50", "--native", "--gil"), ("--subprocesses",), ("--threads", "--idle")],
    "py-spy-dump": [("--json",), ("--native",)],
    "jvm": [
        (),
        ("thread-dump",),
        ("heap-histogram", "--live"),
        ("jfr", "--settings", "profile"),
        ("profile", "--event", "alloc", "--interval", "512k"),
    ],
    "aperf": [("--cpu", "--memory"), ("--interval", "5")],
    "sysreport": [("--interval", "200ms"), ("--interval", "1m"), ()],
}
REFUSED: dict[str, list[tuple[str, ...]]] = {
    "tcpdump": [
        ("-z", "reboot"), ("-w", "/tmp/x"), ("-r", "/etc/passwd"), ("-F", "/etc/passwd"), ("-C", "1"), ("-Z", "nobody"),
        ("-V", "/etc/passwd"), ("-G", "1"), ("-s", "0"), ("-s", "65535"), ("-i", "-w"), ("-w/tmp/x",), ("-zreboot",),
        ("--", "-w"), ("-nw",), ("-i=any; id",), ("-nnz",), ("--write", "/etc/x"), ("--ring", "1", "1"), ("-Z",),
    ],
    "strace": [
        ("-e", "inject=all:error=ENOSYS"), ("-e", "fault=open"), ("-e", "write=1"), ("-e", "read=0"), ("-s", "4096"),
        ("-o", "/etc/x"), ("-p", "1"), ("-o", "|id"), ("-E", "LD_PRELOAD=x"), ("ls",), ("-D",), ("-u", "root"),
        ("-e", "trace=open\nwrite=1"), ("-P", "/etc"), ("--inject=all:error=EIO",), ("-e", "open"),
    ],
    "perf": [
        ("--frequency", "100000"), ("--frequency", "0"), ("--event", "bpf:x.o"), ("--call-graph", "dwarf"),
        ("--root", "/"), ("--pid", "1"), ("--output", "/etc"), ("-e", "cycles"), ("--event", "cycles,../x"),
    ],
    "py-spy": [
        ("--output", "/etc/x"), ("--pid", "9"), ("--rate", "99999"), ("--duration", "1"), ("--", "sh"), ("--locals",),
        ("-o/x",), ("--rate", "-5"),
    ],
    "py-spy-dump": [("--locals",), ("--pid", "9"), ("--core", "/x")],
    "jvm": [
        ("heap-dump",), ("--allow-heap-dump", "heap-dump"), ("jcmd",), ("VM.command_line",), ("--root", "/"), ("load",),
        ("--interval", "1ms,file=/etc/x"), ("--event", "cpu,file=/x"), ("--pid", "1"), ("--settings", "/etc/passwd"),
    ],
    "aperf": [("--profile",), ("-r", "x"), ("--run-name", "/etc/x"), ("--interval", "0")],
    "sysreport": [("--interval", "1ms"), ("--interval", "2m"), ("--output", "/etc"), ("--pid", "1"), ("--root", "/")],
}  # fmt: skip
HOSTILE = (
    ";", "; id", "$(id)", "`id`", "${IFS}id", "a[$(id)]", "port 80\nid", "port 80\0", "--exec", "--exec=id", "@file",
    "-z", "-z id", "| id", "&& id $", "{target_pid}", "{output}/../x", "../../etc/passwd;", "%n$", "\u202e-w", "",
)  # fmt: skip


@pytest.mark.parametrize(("name", "args"), [(name, args) for name, rows in TAKEN.items() for args in rows])
def test_arguments_that_a_tool_is_for_come_last_and_unchanged(name: str, args: tuple[str, ...]) -> None:
    found = rendered(name, *args)
    assert not isinstance(found, Refused), found.message
    assert found[len(found) - len(args) :] == args


@pytest.mark.parametrize(("name", "args"), [(name, args) for name, rows in REFUSED.items() for args in rows])
def test_arguments_that_write_execute_or_show_more_are_refused(name: str, args: tuple[str, ...]) -> None:
    assert isinstance(rendered(name, *args), Refused)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_are_refused_by_every_tool(name: str, word: str) -> None:
    """As an argument, and as the value of every flag that takes one."""
    assert isinstance(rendered(name, word), Refused)
    for rule in CONFIGS[name].spec.allowed_args or ():
        if rule.flag:
            assert isinstance(rendered(name, rule.flag, word), Refused), rule.flag
            assert isinstance(rendered(name, f"{rule.flag}={word}"), Refused), rule.flag


@pytest.mark.parametrize("name", CONFIGS)
@given(word=st.text(max_size=40))
def test_no_word_that_is_taken_can_mean_something_to_a_shell_or_name_a_file(name: str, word: str) -> None:
    found = rendered(name, word)
    if not isinstance(found, Refused):
        assert not set(word) & set(';$`"{}@#?~\n\r\0')
        assert not word.startswith(("/", "."))


LEVELS = {
    # tool -> levels at which a pod that runs as user 1234 can be looked at
    "aperf": {"privileged"},
    "jvm": {"privileged", "baseline", "restricted"},
    "perf": {"privileged"},
    "py-spy": {"privileged", "baseline", "restricted"},
    "py-spy-dump": {"privileged", "baseline", "restricted"},
    "strace": {"privileged", "baseline", "restricted"},
    "sysreport": {"privileged", "baseline", "restricted"},
    "tcpdump": {"privileged", "baseline"},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tool_asks_for_what_each_pod_security_level_allows(name: str) -> None:
    """README's table; elsewhere it is refused before a container is asked for."""
    allowed = set()
    for level in ("privileged", "baseline", "restricted"):
        context = security_context(chosen(CONFIGS[name].spec, level), 1234)
        if not level_faults(level, context):
            allowed.add(level)
    assert allowed == LEVELS[name]


@pytest.mark.parametrize("name", ["strace", "py-spy", "py-spy-dump"])
def test_tools_that_stop_their_target_are_never_stopped_themselves(name: str) -> None:
    """A stopped tracer would freeze the target."""
    assert CONFIGS[name].spec.throttle == "abort"
