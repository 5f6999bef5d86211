"""What the runs say: medians over the rounds, ratios within a round, as a table, JSON and plots."""

import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

import plot
import worker

MIB = 1 << 20
COLUMNS = [
    # heading, key, digits, divisor
    ("rate/s", "rate", 0, 1),
    ("CPU us", "cpu_us", 1, 1),
    ("x floor", "x_floor", 2, 1),
    ("x gatherd", "x_gatherd", 2, 1),
    ("broker us", "broker_us", 1, 1),
    ("p50 ms", "p50_ms", 1, 1),
    ("p99 ms", "p99_ms", 1, 1),
    ("RSS MiB", "rss_peak", 1, MIB),
    ("anon MiB", "anon_peak", 1, MIB),
    ("idle MiB", "anon_idle", 1, MIB),
    ("doubled", "doubled", 0, 1),
]


def median_of(runs, key):
    values = [r[key] for r in runs if r.get(key) is not None]
    return statistics.median(values) if values else None


def ratio(runs, others):
    """Median over the rounds of CPU per fetch against another's in the same round."""
    theirs = {r["round"]: r["cpu_us"] for r in others}
    values = [r["cpu_us"] / theirs[r["round"]] for r in runs if r["round"] in theirs]
    return statistics.median(values) if values else None


def summarise(runs):
    """{shape: {contestant: {column: value}}}; the floor of a shape is the one with lanes when it ran."""
    done = {}
    for r in runs:
        if "error" not in r:
            done.setdefault(r["shape"], {}).setdefault(r["contestant"], []).append(r)
    summary = {}
    for shape, by_name in done.items():
        floor = next((by_name[n] for n in ("lanes", "floor") if n in by_name), [])
        summary[shape] = {}
        for name, mine in by_name.items():
            row = {key: median_of(mine, key) for _, key, _, _ in COLUMNS}
            row["x_floor"] = ratio(mine, floor)
            row["x_gatherd"] = ratio(mine, by_name.get("gatherd", []))
            row["rounds"] = len(mine)
            summary[shape][name] = row
    return summary


def cell(value, digits, divisor):
    return "-" if value is None else f"{value / divisor:.{digits}f}"


def table(summary, runs, shapes):
    """Markdown."""
    lines = []
    for shape in shapes:
        if shape.name not in summary:
            continue
        lines += [f"### {shape.name}: {shape.inflight} in flight, {shape.says}", "",
                  "| | " + " | ".join(c[0] for c in COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
        for name in (n for n in shape.contestants if n in summary[shape.name]):
            row = summary[shape.name][name]
            lines.append(f"| {name} | " + " | ".join(cell(row[key], digits, by) for _, key, digits, by in COLUMNS) + " |")
        lines.append("")
    failed = [f"- {r['shape']}, {r['contestant']}, round {r['round']}: {r['error']}" for r in runs if "error" in r]
    return "\n".join(lines + (["Did not end:", "", *failed, ""] if failed else []))


def machine():
    def first_line(*argv):
        try:
            out = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            return (out.stdout or out.stderr).strip().splitlines()[0]
        except (OSError, IndexError):
            return None

    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), None)
    return {"cpus": len(os.sched_getaffinity(0)), "cpu": model, "kernel": platform.release(), "load_1m": os.getloadavg()[0],
            "gatherd": first_line(worker.build_dir() / "gatherd", "--version"),
            "libcurl": first_line("pkg-config", "--modversion", "libcurl"),
            "librdkafka": first_line("pkg-config", "--modversion", "rdkafka"),
            "nginx": first_line("/usr/sbin/nginx", "-v"), "java": first_line("java", "-version"), "python": platform.python_version()}


def write(out, runs, shapes, skipped):
    """All files anew after each run: what was measured is there however the rest ends."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    summary = summarise(runs)
    (out / "bench.json").write_text(json.dumps({"machine": machine(), "skipped": skipped, "runs": runs, "summary": summary}, indent=1))
    plot.write(out, summary)
    text = table(summary, runs, shapes)
    (out / "bench.md").write_text(text)
    return text
