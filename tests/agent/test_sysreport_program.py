"""The recorder as a program, on this machine and its own process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = "import sys; from toe_async.agent.sysreport.main import main; sys.exit(main(sys.argv[1:]))"


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    own = str(os.getpid())
    arguments = ["--pid", own, "--root", f"/proc/{own}/root", "--output", str(folder), *more]
    return subprocess.Popen([sys.executable, "-c", CODE, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def lines(folder: Path) -> list[str]:
    record = folder / "sysreport.jsonl"
    return record.read_text().splitlines() if record.exists() else []


def test_it_records_until_it_is_told_to_stop_then_leaves_figures_and_page(tmp_path: Path) -> None:
    process = start(tmp_path, "--interval", "200ms")
    while len(lines(tmp_path)) < 3:
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")
    header, *samples = [json.loads(line) for line in lines(tmp_path)]
    assert header["interval"] == 0.2
    assert len(samples) >= 3
    assert samples[-1]["memory"]["MemTotal"] > samples[-1]["memory"]["MemFree"] > 0
    assert os.getpid() in [row[0] for row in samples[-1]["processes"]] or len(samples[-1]["processes"]) == 100
    assert "System report" in (tmp_path / "sysreport.html").read_text()


def test_told_to_stop_at_once_it_still_has_two_samples(tmp_path: Path) -> None:
    process = start(tmp_path, "--interval", "1m")
    while not (tmp_path / "sysreport.jsonl").exists():
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize(
    ("interval", "words"), [("1ms", "not between"), ("2m", "not between"), ("fast", "no duration"), ("-1s", "expected")]
)
def test_an_interval_out_of_bounds_is_refused(tmp_path: Path, interval: str, words: str) -> None:
    process = start(tmp_path, "--interval", interval)
    _, said = process.communicate(timeout=20)
    assert process.returncode in (1, 2)
    assert words in said
    assert not list(tmp_path.iterdir())


COST = """
import json, os, time
from pathlib import Path
from toe_async.agent.sysreport.sample import Sampler
from toe_async.agent.sysreport.series import Series
sampler = Sampler(os.getpid(), Path(f"/proc/{os.getpid()}/root"))
series = Series(sampler.header(1.0, ""))
series.add(sampler.take(0.0))
begun = time.process_time()
for second in range(1, 51):
    sample = sampler.take(float(second))
    json.dumps(sample)
    series.add(sample)
print((time.process_time() - begun) / 50)
"""


def test_a_sample_costs_less_than_one_per_cent_of_a_core_at_one_a_second() -> None:
    """10 ms of processor time: reading, writing and series together, whatever else runs on the machine."""
    done = subprocess.run([sys.executable, "-c", COST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.010
