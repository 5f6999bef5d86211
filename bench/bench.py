"""Runs gatherd, the libraries' floors and the peers over the same jobs, one after the other in each round. Started by bench/run."""

import argparse
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import contestants as who  # noqa: E402
import report  # noqa: E402
import rig as rigs  # noqa: E402
import shapes as what  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small sample: three shapes, one round")
    parser.add_argument("--shape", nargs="+", default=[], metavar="NAME", choices=list(what.BY_NAME), help="these shapes only")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=list(who.CONTESTANTS), help="these contestants only")
    parser.add_argument("--rounds", type=int, help="how many count (3; quick: 1)")
    parser.add_argument("--scale", type=float, help="of each shape's jobs (1; quick: 0.5)")
    parser.add_argument("--out", default="build/bench/out", help="where table, JSON and plots go")
    parser.add_argument("--keep", action="store_true", help="keep the working directory with the logs")
    parser.add_argument("--list", action="store_true", help="print shapes and contestants")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.scale = args.scale or (0.5 if args.quick else 1.0)
    args.shape = args.shape or (what.QUICK if args.quick else what.DEFAULT)
    if args.quick and not args.only:
        args.only = ["gatherd", "floor", "lanes", "aiohttp"]
    return args


def print_list():
    for s in what.SHAPES:
        print(f"{s.name:16} {s.inflight:6} in flight  {s.jobs:6} jobs  {s.says}  [{' '.join(s.contestants)}]")
    print("contestants: " + " ".join(who.CONTESTANTS))


def prepare(shapes, only):
    """({name: contestant}, {name: why it is skipped}) of those that the shapes ask for."""
    ready, skipped = {}, {}
    for name, contestant in who.CONTESTANTS.items():
        if not any(name in s.contestants for s in shapes) or (only and name not in only):
            continue
        try:
            contestant.prepare()
            ready[name] = contestant
        except who.Missing as e:
            skipped[name] = str(e)
            print(f"skipped: {name}: {e}", flush=True)
    return ready, skipped


def turns(shapes, ready, rounds):
    """(round, shape, contestant): all contestants of a shape one after the other, another one first in each round. Round 0 warms the
    broker: its code is not compiled yet at the start, and another part of it is busy at a low rate."""
    for shape in shapes:
        names = [n for n in shape.contestants if n in ready]
        for n in range(0 if shape is shapes[0] or shape.rate else 1, rounds + 1):
            for i in range(len(names)):
                yield n, shape, ready[names[(n + i) % len(names)]]


def run_one(rig, shape, contestant, scale):
    why = contestant.refuses(shape)
    if why:
        return {"error": f"skipped: {why}"}
    jobs = max(int(shape.jobs * scale * contestant.share), 8)
    try:
        measure = getattr(contestant, "measure", None)
        return measure(rig, shape) if measure else rig.run(shape, contestant, jobs)
    except (who.Missing, rigs.RunFailed, AssertionError, TimeoutError, RuntimeError) as e:
        return {"error": str(e).splitlines()[0]}


def say(run):
    head = f"{run['shape']:16} round {run['round']}  {run['contestant']:18}"
    if "error" in run:
        return f"{head} {run['error']}"
    late = f"  p50 {run['p50_ms']:6.1f} ms  p99 {run['p99_ms']:6.1f} ms" if run.get("p50_ms") is not None else ""
    return f"{head} {run['cpu_us']:7.1f} us  {run['rate']:8.0f}/s{late}"


def main():
    args = parse()
    if args.list:
        return print_list()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shapes = [what.BY_NAME[n] for n in args.shape]
    ready, skipped = prepare(shapes, args.only)
    runs, failed = [], set()
    dir = Path(tempfile.mkdtemp(prefix="gatherd-bench-"))
    try:
        with rigs.Rig(dir) as rig:
            for n, shape, contestant in turns(shapes, ready, args.rounds):
                if (shape.name, contestant.name) in failed:
                    continue
                run = {"shape": shape.name, "contestant": contestant.name, "round": n, "load": os.getloadavg()[0],
                       **run_one(rig, shape, contestant, args.scale)}
                if "error" in run:
                    failed.add((shape.name, contestant.name))
                print(say(run), flush=True)
                if n or "error" in run:
                    runs.append(run)
                text = report.write(args.out, runs, shapes, skipped)
    finally:
        if args.keep:
            print(f"logs: {dir}")
        else:
            shutil.rmtree(dir, ignore_errors=True)
    print(f"\n{text}\nwritten: {args.out}/")
    if any("error" in r and r["contestant"].startswith("gatherd") for r in runs):
        sys.exit(1)


if __name__ == "__main__":
    main()
