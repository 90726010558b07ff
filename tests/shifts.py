"""The tests that draw, under many shifts of their seeds and under other instructions of the processor.

    python -m tests.shifts --shifts 20                # hours on two cores; may be stopped and started again
    python -m tests.shifts --shifts 5 tests/bayesmeta/gp/test_process.py

A test becomes one line of a file of JSON lines as soon as it has run, and what is there is not run again: delete the
file, or name another, after a change. At the end stands a table of the tests that failed, and under which shifts.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STEP = 7919  # a prime, and larger than any seed of a test: no two shifts share a seed
OUT, CAPABILITY = "SHIFTS_OUT", "ATEN_CPU_CAPABILITY"  # in the environment of the pytest that is started
NOTHING_FAILED, SOME_FAILED, NONE_LEFT = 0, 1, 5  # exit codes of pytest


def main() -> int:
    """0 where nothing failed, 1 where a test failed, 2 where pytest could not finish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files of tests, by default all")
    parser.add_argument("--shifts", type=int, default=20, help=f"how many, multiples of {STEP} from --first on")
    parser.add_argument("--first", type=int, default=0, help="which multiple comes first")
    parser.add_argument(
        "--capabilities",
        nargs="*",
        default=["default", "avx2"],
        help="what ATen may use instead of the best that the processor has, once each under shift 0",
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/shifts.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    runs = [(STEP * (options.first + number), "") for number in range(options.shifts)]
    runs += [(0, name) for name in options.capabilities]
    codes = [_run(options, shift, capability) for shift, capability in runs]
    failing = _print_table(options.out)
    return 2 if any(code not in (NOTHING_FAILED, SOME_FAILED, NONE_LEFT) for code in codes) else int(failing)


def _run(options: argparse.Namespace, shift: int, capability: str) -> int:
    print(f"=== shift {shift} {capability}", flush=True)
    environment = os.environ | {"SEED": str(shift), OUT: str(options.out.resolve()), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONHASHSEED": str(shift), CAPABILITY: capability}
    if not capability:
        del environment[CAPABILITY]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-m", "draws", "-p", "tests.shifts"]
    return subprocess.run([*command, "-n", str(options.processes), *options.paths], env=environment).returncode


def _print_table(path: Path) -> bool:
    """Whether any test failed."""
    failed, runs, tests = defaultdict(list), set(), set()
    for line in _lines(path):
        name = " ".join(str(part) for part in (line["shift"], line["capability"]) if part != "")
        runs.add(name)
        tests.add(line["test"])
        if line["outcome"] == "failed":
            failed[line["test"]].append(name)
    print(f"{len(tests)} tests, {len(runs)} runs, {len(failed)} tests that failed:")
    for test, shifts in sorted(failed.items()):
        print(f"{len(shifts):3} of {len(runs)}  {test}  {', '.join(shifts)}")
    return bool(failed)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue


def _here() -> tuple[int, str]:
    return int(os.environ["SEED"]), os.environ.get(CAPABILITY, "")


# pytest calls these in the process that is started above, for `-p tests.shifts`


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what has run."""
    lines = _lines(Path(os.environ[OUT]))
    done = {line["test"] for line in lines if (line["shift"], line["capability"]) == _here()}
    left = [item for item in items if item.nodeid not in done]
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
    items[:] = left


_unfinished: dict[str, dict[str, Any]] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Write a test down when it ends; only the process that starts the others hears of all of them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    shift, capability = _here()
    line = _unfinished.setdefault(
        report.nodeid,
        {"test": report.nodeid, "shift": shift, "capability": capability, "outcome": "passed", "seconds": 0.0},
    )
    line["seconds"] = round(line["seconds"] + report.duration, 3)
    if report.failed or (report.skipped and line["outcome"] == "passed"):
        line["outcome"] = report.outcome
    if report.failed:
        line["message"] = report.longreprtext[-2000:]
    if report.when == "teardown":
        with Path(os.environ[OUT]).open("a") as file:
            file.write(json.dumps(_unfinished.pop(report.nodeid)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
