"""The programs around the tools, with programs in the tools' places that keep to what the real ones were seen to do."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents.wrapping import Wrapper
from toe_async.agent.tools import folding
from toe_async.agent.tools.child import ToolError, output_of
from toe_async.agent.tools.interrupt import traceable
from toe_async.agent.tools.processes import family
from toe_async.agent.tools.tcpdump import put_in_order, split
from toe_async.profiles.parse import parse

Make = Callable[[str], Wrapper]

# tcpdump: `-d` compiles and says so; a capture writes the ring's first file and ends on SIGTERM with its statistics.
TCPDUMP = """
log(*sys.argv[1:])
if "-d" in sys.argv:
    if "eighty" in sys.argv[-1]:
        sys.exit("data link type LINUX_SLL2\\ntcpdump: unknown port 'eighty'")
    sys.exit(0)
def end(*_):
    sys.stderr.write("0 packets dropped by kernel\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
target = sys.argv[sys.argv.index("-w") + 1]
for number in range(int(os.environ.get("FILES", "1"))):
    open(f"{target}{number}", "w").write("packets")
log("capturing")
while True:
    time.sleep(1)
"""


def test_a_capture_is_compiled_then_made_and_its_drop_count_said(wrapper: Make) -> None:
    tcpdump = wrapper("tools.tcpdump")
    tcpdump.fake("tcpdump", TCPDUMP)
    target = tcpdump.folder / "capture.pcap"
    process = tcpdump.start("--default-filter", "tcp", "--ring", "10", "2", "--write", target, "-i", "any", "port 80")
    tcpdump.wait_for_call(process, "capturing")
    code, said = tcpdump.stop(process)
    assert code == 0
    assert "0 packets dropped by kernel" in said
    compiled, captured = tcpdump.calls[:2]
    assert compiled == "-d -i any -- port 80"
    assert captured == f"-n -U -Z root -C 10 -W 2 -w {target} -s 96 -i any -- port 80"
    assert os.listdir(tcpdump.folder) == ["capture.pcap"]


def test_without_an_expression_the_default_filter_counts(wrapper: Make) -> None:
    """And a configuration that says nothing at all gets the same bounds and a file in its folder."""
    tcpdump = wrapper("tools.tcpdump")
    tcpdump.fake("tcpdump", TCPDUMP)
    process = tcpdump.start("-i", "any", "-nn")
    tcpdump.wait_for_call(process, "capturing")
    tcpdump.stop(process)
    assert tcpdump.calls[1].endswith("-w capture.pcap -s 96 -i any -nn -- tcp or udp or icmp or icmp6")
    assert os.listdir(tcpdump.folder) == ["capture.pcap"]


def test_a_filter_that_does_not_compile_is_told_before_anything_is_captured(wrapper: Make) -> None:
    tcpdump = wrapper("tools.tcpdump")
    tcpdump.fake("tcpdump", TCPDUMP)
    code, said = tcpdump.run("-i", "any", "port eighty")
    assert (code, said) == (1, "tcpdump does not start: unknown port 'eighty'\n")
    assert not os.listdir(tcpdump.folder)


@pytest.mark.parametrize("words", [["-w", "/x"], ["-nw", "/x"], ["-nz", "id"], ["--version"], ["-i", "any", "-F/x"]])
def test_options_that_read_write_or_run_are_refused_by_the_wrapper_too(words: list[str]) -> None:
    with pytest.raises(ToolError, match="not for this tool"):
        split(words)


@pytest.mark.parametrize(
    ("words", "options", "expression"),
    [
        (["-i", "any", "port 80 or port 443"], ["-i", "any"], ["port 80 or port 443"]),
        (["-nn", "-c5", "tcp"], ["-nn", "-c5"], ["tcp"]),
        (["-i", "any", "-i", "eth0"], ["-i", "any", "-i", "eth0"], []),
        (["host", "a", "-", "b"], [], ["host", "a", "-", "b"]),
        (["-n", "--", "not", "tcp"], ["-n"], ["not", "tcp"]),
        ([], [], []),
    ],
)
def test_options_and_expression_are_told_apart(words: list[str], options: list[str], expression: list[str]) -> None:
    assert split(words) == (options, expression)


def test_files_of_a_ring_are_named_in_the_order_of_time(tmp_path: Path) -> None:
    """tcpdump starts again at 0 when the ring is full."""
    for age, name in enumerate(("capture.pcap2", "capture.pcap0", "capture.pcap1")):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    put_in_order(tmp_path / "capture.pcap")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "capture-1.pcap": "capture.pcap2",
        "capture-2.pcap": "capture.pcap0",
        "capture-3.pcap": "capture.pcap1",
    }


# py-spy: SIGTERM ends it without a profile, SIGINT makes it write, and a second one means nothing.
PY_SPY = """
def end(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open("profile.folded", "w").write("a;b 3\\n")
    print("wrote a profile")
    sys.exit(0)
signal.signal(signal.SIGINT, end)
log("sampling")
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_tool_that_knows_sigint_only_keeps_its_output(wrapper: Make, number: int) -> None:
    py_spy = wrapper("tools.interrupt")
    py_spy.fake("py-spy", PY_SPY)
    process = py_spy.start("py-spy", "record")
    py_spy.wait_for_call(process, "sampling")
    code, said = py_spy.stop(process, number)
    assert (code, said) == (0, "wrote a profile\n")
    assert (py_spy.folder / "profile.folded").read_text() == "a;b 3\n"


@pytest.mark.parametrize(("body", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137), ("", 0)])
def test_a_tools_own_exit_code_is_not_hidden(wrapper: Make, body: str, code: int) -> None:
    tool = wrapper("tools.interrupt")
    tool.fake("py-spy", body)
    assert tool.run("py-spy")[0] == code


def test_a_process_that_is_gone_is_told_before_the_tool_is_started(wrapper: Make) -> None:
    tool = wrapper("tools.interrupt")
    tool.fake("py-spy", "log('started')")
    code, said = tool.run("py-spy", "record", "--pid", "4194305")  # above the largest PID of any Linux
    assert (code, said, tool.calls) == (1, "process 4194305 of the target is gone\n", [])


def test_a_forbidden_process_is_told_with_what_it_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(
        ToolError, match="process 7 of the target: it needs the capability SYS_PTRACE, or the target's own"
    ):
        traceable(Path("/proc/7"))


def test_a_tool_that_is_missing_is_named(wrapper: Make) -> None:
    code, said = wrapper("tools.interrupt").run("no-such-tool")
    assert (code, said) == (1, "no-such-tool cannot be started: No such file or directory\n")


def test_a_command_that_hangs_or_talks_without_end_is_ended_and_named() -> None:
    with pytest.raises(ToolError, match=r"sleep took longer than 0 s"):
        output_of(["sleep", "60"], seconds=0.05)
    with pytest.raises(ToolError, match="yes answered with more than 1 MiB"):
        output_of(["yes"])
    assert output_of(["echo", "ok"]) == (0, "ok\n")


def test_a_tool_does_not_outlive_a_wrapper_that_is_killed(wrapper: Make) -> None:
    tool = wrapper("tools.interrupt")
    tool.fake("py-spy", "log('pid', os.getpid())\ntime.sleep(60)")
    process = tool.start("py-spy")
    tool.wait_for_call(process, "pid")
    pid = int(tool.calls[0].split()[1])
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
        assert time.monotonic() < until


# perf: `stat` says whether cycles are counted; `record` writes to stdout until SIGINT; `script` prints what it reads.
PERF = """
log(*sys.argv[1:])
if sys.argv[1] == "stat":
    sys.stderr.write(os.environ.get("STAT", "0<not supported>,,cycles,0,100.00,,") + "\\n")
elif sys.argv[1] == "record":
    if os.environ.get("RECORD"):
        sys.exit(os.environ["RECORD"])
    def end(*_):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.stdout.write(os.environ.get("SAMPLES", ""))
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    log("recording")
    while True:
        time.sleep(1)
else:
    sys.stdout.write(sys.stdin.read())
"""
SAMPLES = """program     1/9     25948.485578: cpu-clock: 
\t          270738 main.burn+0x1f (/program)
\t           8f0e1 runtime.goexit.abi0 (/program)

two words     1/8  25948.586035:     10101010 cpu-clock:u: 
\t    7fa727057ce0 std::vector<int, a>::push_back(int&&) (/usr/lib/x.so)
\tffffffff81000000 [unknown] ([kernel.kallsyms])

"""  # noqa: W291  as perf prints it


def perf_of(wrapper: Make, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Wrapper:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    perf = wrapper("tools.perf")
    perf.fake("perf", PERF)
    return perf


def test_perf_leaves_text_and_folded_stacks_that_the_collector_reads(
    wrapper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    perf = perf_of(wrapper, monkeypatch, SAMPLES=SAMPLES)
    process = perf.start("--pid", os.getpid(), "--root", "/", "--output", perf.folder, "--frequency", "49")
    perf.wait_for_call(process, "recording")
    code, said = perf.stop(process)
    assert code == 0, said
    assert "perf took 2 samples of cpu-clock at 49 Hz" in said
    folded = (perf.folder / "perf.folded").read_text()
    assert folded == (
        "program;runtime.goexit.abi0;main.burn 1\n"
        "two words;[kernel.kallsyms]_[k];std::vector<int, a>::push_back(int&&) 1\n"
    )
    assert len(parse(folded.encode()).samples) == 2
    assert (perf.folder / "perf.script.txt").read_text() == SAMPLES
    record = next(call for call in perf.calls if call.startswith("record -q"))
    words = record.split()
    assert str(os.getpid()) in words[words.index("-p") + 1].split(",")


@pytest.mark.parametrize(
    "environment",
    [
        {"STAT": "Error:\nAccess to performance monitoring and observability operations is limited."},
        {"RECORD": "Error:\nNo permission to enable cpu-clock event."},
    ],
)
def test_a_perf_that_may_not_sample_says_what_it_would_need(
    wrapper: Make, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    perf = perf_of(wrapper, monkeypatch, **environment)
    code, said = perf.run("--pid", os.getpid(), "--root", "/", "--output", perf.folder)
    assert code == 1
    assert "PERFMON" in said
    assert "py-spy or jvm need less" in said


def test_a_perf_without_samples_is_no_success(wrapper: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    perf = perf_of(wrapper, monkeypatch, STAT="123,,cycles,0,100.00,,")
    process = perf.start("--pid", os.getpid(), "--root", "/", "--output", perf.folder)
    perf.wait_for_call(process, "recording")
    code, said = perf.stop(process)
    assert (code, "no sample was taken" in said) == (1, True)
    assert any("-e cycles" in call for call in perf.calls if call.startswith("record"))


def test_folding_survives_any_text() -> None:
    lines = [
        "",
        "no head",
        "\t 1 frame without a head (x)",
        "a 1/1 1.0: e:",
        "\tzz",
        "\t 12 f;g+0x1 (/a)",
        "b 1/1 2.0: e:",
    ]
    assert folding.fold(lines) == {"a;f:g": 1, "b": 1}


def test_the_targets_processes_are_those_of_its_control_group(tmp_path: Path) -> None:
    for pid, group in ((1, "0::/../a"), (7, "0::/../a"), (9, "0::/"), (30, "0::/../a")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(group)
    (tmp_path / "self").mkdir()
    (tmp_path / "40").mkdir()  # gone between the listing and the look
    assert family(1, tmp_path) == [1, 7, 30]
    assert family(5, tmp_path) == []


APERF = """
log(*sys.argv[1:])
open("aperf.tar.gz", "w").write("archive")
"""


def test_aperf_is_asked_for_the_runs_length_and_its_archive_is_kept(wrapper: Make) -> None:
    """By what its documentation says; not tried with the real one."""
    aperf = wrapper("tools.aperf")
    aperf.fake("aperf", APERF)
    assert aperf.run("--output", aperf.folder, "--duration", "60", "--cpu", "--memory")[0] == 0
    assert aperf.calls == ["record -r aperf -i 1 -p 58"]
    assert os.listdir(aperf.folder) == ["aperf.tar.gz"]


def test_an_aperf_without_an_archive_is_no_success(wrapper: Make) -> None:
    aperf = wrapper("tools.aperf")
    aperf.fake("aperf", "")
    assert aperf.run("--output", aperf.folder, "--duration", "60") == (1, "aperf ended without an archive\n")
