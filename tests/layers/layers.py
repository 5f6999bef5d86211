"""The layers of worker/: every arrow points down, each third-party library is included by the files named here, and long files
and functions are only those with a reason. Draws docs/architecture.svg.

  layers.py check            prints what is wrong, exit 1 when anything is
  layers.py draw             writes docs/architecture.svg
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "worker"

# A module is a .c/.h pair, or all files whose name begins with one of FAMILIES and an underscore.
FAMILIES = ("log", "options", "job", "resolve", "fetch", "kafka", "pipeline")
LAYERS = [
    ("base", "base list thread heap arena clock buf err log field options metrics"),
    ("values", "utf8 url netguard robots retry job result offsetmap"),
    ("rules", "window host robots_cache profile admit task health schedule ages"),
    ("I/O", "watchdog loop helper resolve fetch kafka httpd"),
    ("pipeline", "dispatch pipeline report lifecycle"),
    ("programs", "main ctl"),
]
LAYER_OF = {module: i for i, (_, names) in enumerate(LAYERS) for module in names.split()}

# Which modules may include a third-party header.
LIBRARIES = {
    "curl/curl.h": "url retry fetch main ctl",  # retry: curl_getdate, for HTTP dates
    "idn2.h": "url",
    "jansson.h": "job ctl",
    "openssl/": "fetch ctl",
    "gatherd/v1/": "job result ctl",
    "librdkafka/rdkafka.h": "kafka ctl",
    "librdkafka/rdkafka_mock.h": "ctl",
    "event2/": "loop resolve fetch httpd ctl",
    "ares.h": "resolve",
    "uthash.h": "host robots_cache admit resolve fetch ctl",
    "utlist.h": "",
}

FILE_LINES_MAX = 900
FUNCTION_LINES_MAX = 100
# File or file:function -> why it may be longer.
EXCEPTIONS = {}


def module_of(path):
    if path.parent.name == "ctl":
        return "ctl"
    stem = path.stem
    for family in FAMILIES:
        if stem == family or stem.startswith(family + "_"):
            return family
    return stem


def sources():
    return sorted(p for p in WORKER.rglob("*") if p.suffix in (".c", ".h", ".def"))


def includes(path):
    return re.findall(r'^\s*#include\s+(["<])([^">]+)[">]', path.read_text(), re.M)


def graph():
    """{module: {modules it includes}}"""
    arrows = {module_of(p): set() for p in sources()}
    for path in sources():
        me = module_of(path)
        for kind, name in includes(path):
            if kind == '"' and not name.startswith("gatherd/"):
                beside = path.parent / name
                other = module_of(beside if beside.exists() else WORKER / name)
                if other != me:
                    arrows[me].add(other)
    return arrows


def check_layers(arrows):
    for me, others in sorted(arrows.items()):
        if me not in LAYER_OF:
            yield f"worker/{me}: not in the table of layers (tests/layers/layers.py)"
            continue
        for other in sorted(others):
            if other in LAYER_OF and LAYER_OF[other] > LAYER_OF[me]:
                yield f"worker/{me} includes {other}, which is in a higher layer"


def check_circles(arrows):
    state = {}

    def visit(module, trail):
        if state.get(module) == "done":
            return
        if module in trail:
            yield "circle: " + " -> ".join(trail[trail.index(module):] + [module])
            return
        for other in sorted(arrows.get(module, ())):
            yield from visit(other, trail + [module])
        state[module] = "done"

    for module in sorted(arrows):
        yield from visit(module, [])


def check_libraries():
    for path in sources():
        me = module_of(path)
        for _, name in includes(path):
            for prefix, allowed in LIBRARIES.items():
                if (name == prefix or (prefix.endswith("/") and name.startswith(prefix))) and me not in allowed.split():
                    yield f"{path.relative_to(ROOT)} includes {name}: only {allowed or 'nobody'} may"
            if name == "librdkafka/rdkafka_mock.h" and path.name != "sandbox.c":
                yield f"{path.relative_to(ROOT)} includes {name}: only ctl/sandbox.c may"


def functions(text):
    """(name, lines) of each function: from the line that opens it to the brace in the first column."""
    name, start = None, 0
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if line == "{":
            head = " ".join(lines[max(0, i - 4):i])
            found = re.findall(r"(\w+)\([^()]*(?:\([^()]*\)[^()]*)*\)\s*$", head)
            name, start = (found[-1] if found else "?"), i
        elif line == "}" and name:
            yield name, i - start + 1
            name = None


def check_lengths():
    for path in sources():
        if path.suffix != ".c":
            continue
        text, rel = path.read_text(), str(path.relative_to(WORKER))
        lines = text.count("\n")
        if lines > FILE_LINES_MAX and rel not in EXCEPTIONS:
            yield f"worker/{rel}: {lines} lines, over {FILE_LINES_MAX}"
        for name, n in functions(text):
            if n > FUNCTION_LINES_MAX and f"{rel}:{name}" not in EXCEPTIONS:
                yield f"worker/{rel}: {name} has {n} lines, over {FUNCTION_LINES_MAX}"


def check():
    arrows = graph()
    problems = [*check_layers(arrows), *check_circles(arrows), *check_libraries(), *check_lengths()]
    for problem in problems:
        print(problem)
    print(f"{len(arrows)} modules, {sum(map(len, arrows.values()))} arrows, {len(problems)} problems")
    return 1 if problems else 0


def reduced(arrows):
    """Without the arrows that follow from others."""
    reach = {}

    def below(module):
        if module not in reach:
            reach[module] = set()
            for other in arrows.get(module, ()):
                reach[module] |= {other} | below(other)
        return reach[module]

    return {m: {o for o in others if not any(o in below(p) for p in others if p != o)} for m, others in arrows.items()}


WIDTH, ROW, BOX, GAP, LEFT, TOP = 1180, 120, 92, 12, 110, 30


def svg(arrows):
    """Our own few lines instead of a drawing program: the same picture on every machine."""
    arrows = reduced(arrows)
    place, out = {}, []
    height = TOP + ROW * len(LAYERS)
    for i, (title, names) in enumerate(reversed(LAYERS)):
        y = TOP + i * ROW
        modules = [m for m in names.split() if m in arrows]
        out.append(f'<rect x="0" y="{y - 18}" width="{WIDTH}" height="{ROW - 34}" fill="{"#f4f6f8" if i % 2 else "#eaf0f6"}"/>')
        out.append(f'<text x="10" y="{y + 28}" font-weight="bold">{len(LAYERS) - 1 - i} {title}</text>')
        step = (WIDTH - LEFT) / len(modules)
        for j, module in enumerate(modules):
            place[module] = (LEFT + step * (j + 0.5), y + 24)
    lines, boxes = [], []
    for me in sorted(arrows):
        for other in sorted(arrows[me]):
            (x1, y1), (x2, y2) = place[me], place[other]
            if y1 == y2:
                mid = (x1 + x2) / 2
                lines.append(f'<path d="M {x1:.0f} {y1 + 15} Q {mid:.0f} {y1 + 48} {x2:.0f} {y2 + 17}"/>')
            else:
                lines.append(f'<path d="M {x1:.0f} {y1 + 15} L {x2:.0f} {y2 - 17}"/>')
    for module, (x, y) in sorted(place.items()):
        boxes.append(f'<rect x="{x - BOX / 2:.0f}" y="{y - 15}" width="{BOX}" height="30" rx="5" fill="white" stroke="#345"/>')
        boxes.append(f'<text x="{x:.0f}" y="{y + 5}" text-anchor="middle">{module}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        '<title>gatherd: modules by layer; an arrow is an include, those that follow from others are left out</title>',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M 0 0 L 8 4 L 0 8 z" fill="#678"/></marker></defs>',
        *out, '<g fill="none" stroke="#678" stroke-width="0.8" marker-end="url(#a)">', *[ln.replace("/>", ' marker-end="url(#a)"/>') for ln in lines],
        "</g>", *boxes, "</svg>", ""])


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(check())
    if sys.argv[1:2] == ["draw"]:
        (Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "docs" / "architecture.svg").write_text(svg(graph()))
        sys.exit(0)
    sys.exit(__doc__)
