"""Counts the instructions of a message's steps under valgrind and holds them against the stored baseline.

    tests/run.sh --instructions          count, compare, fail beyond the slack
    tests/run.sh --instructions --renew  count, and make that the baseline

Counts do not depend on how busy or how fast the machine is, so they may fail a build where times may not. They do depend on
the compiler: under another one than the baseline's nothing is compared, and that is said. Where a checkout lies and what else
is built with it moves them too, by up to 4 %: the stored baseline has the dearest of several builds of the same code.
"""

import concurrent.futures
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
SLACK = 0.05
# Between the two every step has come to its steady state; what was made before is in both.
FEW, MANY = 2_000, 6_000
LIMIT_S = 120


def collected(program, case, count):
    """Instructions of a whole run."""
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, case, str(count)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"valgrind {program} {case} {count}\n{done.stdout}{done.stderr}")
    return int(found[1])


def instructions(program, case):
    """Of one step."""
    return round((collected(program, case, MANY) - collected(program, case, FEW)) / (MANY - FEW), 1)


def compiler():
    return subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def worse(baseline, counted):
    """One sentence for each case that costs more than it may, is new or is gone."""
    found = []
    for case in sorted(baseline.keys() | counted.keys()):
        before, now = baseline.get(case), counted.get(case)
        if before is None or now is None:
            found.append(f"{case} stands only in {'the program' if before is None else 'the baseline'}")
        elif now > before * (1 + SLACK):
            found.append(f"{case}: {now:.0f} instructions, {before:.0f} in the baseline ({now / before - 1:+.1%})")
    return found


def main():
    program, renew = sys.argv[1], sys.argv[2:] == ["--renew"]
    listed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        counted = dict(zip(listed, workers.map(lambda case: instructions(program, case), listed), strict=True))
    if renew:
        BASELINE.write_text(json.dumps({"compiler": compiler(), "instructions": counted}, indent=2) + "\n")
    baseline = json.loads(BASELINE.read_text())
    print(f"{'instructions per step':28} {'now':>8} {'baseline':>9} {'change':>8}")
    for case, now in counted.items():
        before = baseline["instructions"].get(case)
        change = f"{before:9.0f} {now / before - 1:+8.1%}" if before else ""
        print(f"{case:28} {now:8.0f} {change}")
    if baseline["compiler"] != compiler():
        print(f"not compared: the baseline is of {baseline['compiler']}, this is {compiler()}; tests/run.sh --instructions --renew")
        return
    found = worse(baseline["instructions"], counted)
    if found:
        raise SystemExit("dearer than the baseline by more than "
                         f"{SLACK:.0%}:\n  " + "\n  ".join(found) + "\nif that is meant: tests/run.sh --instructions --renew")


if __name__ == "__main__":
    main()
