"""The JVM's wrapper against a JVM that does what real ones were seen to do: answers, and files in the target's /tmp."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents.wrapping import Wrapper
from toe_async.agent.tools.child import ToolError
from toe_async.agent.tools.jvmfolder import TargetFolder
from toe_async.profiles.parse import parse

Make = Callable[[str], Wrapper]

# Debian's jattach: two lines about the connection, then the answer. JFR makes a repository, empty once nobody records.
JATTACH = """
log(*sys.argv[2:])
root = os.environ["TARGET_ROOT"]
command = sys.argv[2:]
print("Connected to remote JVM")
if os.environ.get("REFUSE") in command:
    print("Response code = 1\\njava.lang.Refused: not today")
    sys.exit(1)
print("JVM response code = 0")
words = dict(word.split("=", 1) for part in command for word in part.replace(",", " ").split() if "=" in word)
if command[0] == "threaddump":
    print("Full thread dump OpenJDK\\n\\n\\"main\\" #1")
elif command[0] == "inspectheap":
    print(" num     #instances         #bytes  class name\\n   1:  3  96  [B")
elif command[0] == "jcmd" and "JFR.start" in command[1]:
    os.mkdir(root + "/tmp/2026_11_21_15_00_00_1")
    print("Started recording 1.")
elif command[0] == "jcmd":
    open(root + words["filename"], "w").write("FLR")
    print("Stopped recording")
elif command[0] == "load":
    log("library", os.path.exists(root + command[1]))
    if os.environ.get("PROFILER"):
        open(root + words["log"], "w").write(os.environ["PROFILER"])
        print("100")
        sys.exit(1)
    if command[3].startswith("stop"):
        open(root + words["file"], "w").write(os.environ.get("STACKS", "java/lang/Thread.run;Busy.spin 7\\n"))
elif command[0] == "dumpheap":
    open(root + command[1], "w").write("JAVA PROFILE")
"""


@pytest.fixture
def jvm(wrapper: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, Wrapper]]:
    """Runs one mode against a fake JVM; gives exit code, stderr and the wrapper."""
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    monkeypatch.setenv("TARGET_ROOT", str(root))

    def run(*words: str, **environment: str) -> tuple[int, str, Wrapper]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        made = wrapper("tools.jvm")
        made.fake("jattach", JATTACH)
        arguments = ["--pid", os.getpid(), "--root", root, "--output", made.folder, "--duration", "0.1", *words]
        code, said = made.run(*arguments)
        assert not list((root / "tmp").iterdir()), "something is left in the target"
        return code, said, made

    return run


def test_a_thread_dump_is_what_happens_without_a_mode(jvm: Callable[..., tuple[int, str, Wrapper]]) -> None:
    code, _, made = jvm()
    assert code == 0
    assert (made.folder / "threads.txt").read_text() == 'Full thread dump OpenJDK\n\n"main" #1\n'
    assert made.calls == ["threaddump -l"]


@pytest.mark.parametrize(("words", "call"), [((), "inspectheap -all"), (("--live",), "inspectheap -live")])
def test_a_heap_histogram_collects_garbage_only_when_asked(
    jvm: Callable[..., tuple[int, str, Wrapper]], words: tuple[str, ...], call: str
) -> None:
    code, _, made = jvm("heap-histogram", *words)
    assert (code, made.calls) == (0, [call])
    assert "#instances" in (made.folder / "heap-histogram.txt").read_text()


def test_a_flight_recording_leaves_nothing_in_the_target(jvm: Callable[..., tuple[int, str, Wrapper]]) -> None:
    code, said, made = jvm("jfr", "--settings", "profile")
    assert code == 0, said
    assert (made.folder / "recording.jfr").read_text() == "FLR"
    start, stop = made.calls
    assert "settings=profile" in start
    assert "duration=30s" in start  # ends by itself when nobody is left to end it
    name = start.partition("name=")[2].split()[0]
    assert f"JFR.stop name={name} " in stop


def test_a_refusal_of_the_jvm_is_told_in_its_words(jvm: Callable[..., tuple[int, str, Wrapper]]) -> None:
    code, said, _ = jvm("thread-dump", REFUSE="threaddump")
    assert code == 1
    assert "java.lang.Refused: not today" in said
    assert "its own user or root" in said


def test_a_heap_dump_needs_the_administrators_word(jvm: Callable[..., tuple[int, str, Wrapper]]) -> None:
    code, said, made = jvm("heap-dump")
    assert (code, made.calls) == (1, [])
    assert "--allow-heap-dump" in said


def test_a_heap_dump_that_is_allowed_comes_out_whole(jvm: Callable[..., tuple[int, str, Wrapper]]) -> None:
    code, said, made = jvm("--allow-heap-dump", "heap-dump")
    assert code == 0, said
    assert (made.folder / "heap.hprof").read_text() == "JAVA PROFILE"


def test_an_interval_that_would_be_more_than_an_interval_is_refused(
    jvm: Callable[..., tuple[int, str, Wrapper]],
) -> None:
    code, said, made = jvm("profile", "--interval", "1ms,file=/etc/x")
    assert (code, made.calls) == (1, [])
    assert "is no interval" in said


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """What stands for async-profiler."""
    path = tmp_path / "libasyncProfiler.so"
    path.write_bytes(b"\x7fELF")
    return path


def test_a_profile_is_started_and_stopped_in_the_jvm_and_its_stacks_are_read_by_the_collector(
    jvm: Callable[..., tuple[int, str, Wrapper]], library: Path
) -> None:
    code, said, made = jvm("--profiler", str(library), "profile", "--interval", "1ms")
    assert code == 0, said
    assert len(parse((made.folder / "profile.folded").read_bytes()).samples) == 1
    start, _, stop, _ = made.calls
    assert start.startswith("load /tmp/.toe-async-profiler-4.0.so true start,event=cpu,interval=1ms,timeout=30,")
    assert "true stop,collapsed,file=/tmp/.toe-" in stop
    assert made.calls.count("library True") == 2


@pytest.mark.parametrize(
    ("event", "command"), [("alloc", "start,alloc=512k,"), ("lock", "start,lock=512k,"), ("wall", "start,wall=512k,")]
)
def test_an_event_other_than_the_processor_has_its_own_kind_of_interval(
    jvm: Callable[..., tuple[int, str, Wrapper]], library: Path, event: str, command: str
) -> None:
    code, said, made = jvm("--profiler", str(library), "profile", "--event", event, "--interval", "512k")
    assert code == 0, said
    assert command in made.calls[0]


def test_a_profiler_that_is_busy_says_so(jvm: Callable[..., tuple[int, str, Wrapper]], library: Path) -> None:
    code, said, _ = jvm("--profiler", str(library), "profile", PROFILER="Profiler already started")
    assert (code, said) == (1, "async-profiler in the JVM: Profiler already started\n")


def test_a_profile_without_stacks_is_no_success(jvm: Callable[..., tuple[int, str, Wrapper]], library: Path) -> None:
    code, said, made = jvm("--profiler", str(library), "profile", STACKS="")
    assert (code, "no sample was taken" in said, os.listdir(made.folder)) == (1, True, [])


class TestTargetFolder:
    """What keeps a hostile target from having this container's files read or written."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "root/tmp").mkdir(parents=True)
        return tmp_path / "root"

    def test_it_is_gone_with_all_that_was_in_it(self, root: Path) -> None:
        with TargetFolder(str(root), os.getpid()) as folder:
            Path(str(root) + folder.inside("left")).write_text("x")
        assert not list((root / "tmp").iterdir())

    def test_a_link_in_the_place_of_tmp_is_not_followed(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "ours").mkdir()
        (root / "tmp").rmdir()
        (root / "tmp").symlink_to(tmp_path / "ours")
        with pytest.raises(ToolError, match="cannot be used"), TargetFolder(str(root), os.getpid()):
            pass
        assert not list((tmp_path / "ours").iterdir())

    @pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
    def test_only_a_regular_file_is_copied_out(self, root: Path, tmp_path: Path, kind: str) -> None:
        (tmp_path / "secret").write_text("secret")
        with TargetFolder(str(root), os.getpid()) as folder:
            path = Path(str(root) + folder.inside("recording.jfr"))
            if kind == "link":
                path.symlink_to(tmp_path / "secret")
            elif kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                path.mkdir()
            with pytest.raises(ToolError, match="cannot be read"):
                folder.copy_out("recording.jfr", tmp_path / "copy")
            if kind == "folder":
                path.rmdir()
        assert not (tmp_path / "copy").exists() or not (tmp_path / "copy").read_text()

    def test_what_is_lent_is_taken_back(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "library").write_bytes(b"code")
        with (
            TargetFolder(str(root), os.getpid()) as folder,
            folder.lent(tmp_path / "library", ".lib.so") as path,
        ):
            assert path == "/tmp/.lib.so"
            assert Path(str(root) + path).read_bytes() == b"code"
        assert not list((root / "tmp").iterdir())

    def test_another_runs_library_is_used_and_left(self, root: Path, tmp_path: Path) -> None:
        """A second one on the same JVM; it answers for itself."""
        (tmp_path / "library").write_bytes(b"code")
        (root / "tmp/.lib.so").write_bytes(b"code")
        with TargetFolder(str(root), os.getpid()) as folder, folder.lent(tmp_path / "library", ".lib.so"):
            pass
        assert [path.name for path in (root / "tmp").iterdir()] == [".lib.so"]

    def test_a_library_that_is_another_file_is_not_loaded(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "library").write_bytes(b"code")
        (root / "tmp/.lib.so").write_bytes(b"evil")
        with (
            TargetFolder(str(root), os.getpid()) as folder,
            pytest.raises(ToolError, match="another file"),
            folder.lent(tmp_path / "library", ".lib.so"),
        ):
            pass
