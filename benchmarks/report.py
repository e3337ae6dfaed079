"""From the results of a run to Markdown, JSON and SVG, and the verdict on each target."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.load import OPERATIONS

# A server's figures, by its name; see benchmarks.__main__.compare.
Results = dict[str, Any]

NAMES = {"read": "read one", "list": "list of 100", "create": "create", "patch": "patch", "delete": "delete"}
FIGURES = {
    "cpu": ("CPU per request", "µs, user and system, all processes of the server; less is better", "{:,.0f}"),
    "throughput": ("Throughput", "requests per second; more is better", "{:,.0f}"),
    "p50": ("Median latency", "ms; less is better", "{:.1f}"),
    "p99": ("p99 latency", "ms; less is better", "{:.1f}"),
}
WHOLE = {
    "startup": ("start to first response, s", "{:.2f}"),
    "worker": ("memory of the worker, MB", "{:.0f}"),
    "total": ("memory of all processes, MB", "{:.0f}"),
}
SERVERS = {"gunicorn": "gunicorn", "granian": "Granian", "uvicorn": "uvicorn"}
VARIANTS = {"": "", "wal": ", WAL", "prepared": ", prepared statements"}
PARTS = {"growth": "growth", "scaling": "scaling", "postgresql": "PostgreSQL"}  # measured in fewer rounds
REFERENCE = "tutorial-uvicorn"
README = Path(__file__).parent.parent / "README.md"
SPEED = re.compile(r"(<!-- speed -->\n).*?(<!-- /speed -->)", re.DOTALL)

TARGETS = """\
Each target is a limit for the ratio of two figures, or names the app that should be the best on its server. The
tutorial runs on uvicorn.

"""
# Targets: how many times heroes' CPU the reference takes, at least.
FASTER = {
    "gunicorn": {"read": 1.7, "list": 4.5, "create": 3.0, "patch": 2.4, "delete": 2.4},
    "granian": {"read": 3.2, "list": 6.5, "create": 4.0, "patch": 3.5, "delete": 3.5},
}
# How many times the CPU of the floor on Granian, at most.
ABOVE_FLOOR = {"read": 7.0, "list": 3.7, "create": 3.4, "patch": 3.3}
BELOW_FALCON = 0.9  # reads on Granian
P99 = 0.5  # of the reference
GROWN = 1.25  # the largest table, or the deepest page by `after`, beside the smallest

# Okabe and Ito's colours, which the colour-blind can tell apart.
HEROES_COLOUR, TUTORIAL_COLOUR, FLOOR_COLOUR, OTHERS = "#0072B2", "#D55E00", "#999999", "#56B4E9"
COLOURS = {"heroes": HEROES_COLOUR, "tutorial": TUTORIAL_COLOUR, "floor": FLOOR_COLOUR}


def median(results: Results, name: str, figure: str, operation: str = "") -> float:
    """Return the median over the rounds of a figure of one operation, or of the server as a whole."""
    result = results[name]["operations"][operation] if operation else results[name]
    return float(statistics.median(result[figure]))


def title(measured: Results, name: str) -> str:
    """Return a server's first cell."""
    app, server, variant = measured["servers"][name]
    return f"{measured['titles'][app]} on {SERVERS[server]}{VARIANTS[variant]}"


def first(measured: Results, results: Results, server: str, figure: str, operation: str = "") -> str:
    """Return the name of the app that is first among those on a server, apart from the floor."""
    apps = [name for name in results if measured["servers"][name][1] == server and not name.startswith("floor")]
    choose = max if figure == "throughput" else min
    return choose(apps, key=lambda name: median(results, name, figure, operation))


def targets(measured: Results) -> list[tuple[str, str, str, bool]]:
    """Return each target that was measured: its words, the wanted and the measured value, whether it is met."""
    rows: list[tuple[str, str, str, bool]] = []
    results = measured.get("sqlite", {})

    def add(words: str, limit: float, value: float, least: bool = False) -> None:
        wanted = f"{'≥' if least else '≤'} {limit:g}×"
        rows.append((words, wanted, f"{value:.2f}×", value >= limit if least else value <= limit))

    def ratio(over: str, under: str, figure: str, operation: str = "") -> float:
        return median(results, over, figure, operation) / median(results, under, figure, operation)

    for server, faster in FASTER.items():
        heroes, where = f"heroes-{server}", f"on {SERVERS[server]}"
        if heroes not in results:
            continue
        if REFERENCE in results:
            for key, limit in faster.items():
                times = ratio(REFERENCE, heroes, "cpu", key)
                add(f"CPU, {NAMES[key]}: the tutorial / heroes {where}", limit, times, least=True)
            for key in OPERATIONS:
                add(f"p99, {NAMES[key]}: heroes {where} / the tutorial", P99, ratio(heroes, REFERENCE, "p99", key))
            add(f"memory of a worker: heroes {where} / the tutorial", 1, ratio(heroes, REFERENCE, "worker"))
        for figure in ("cpu", "throughput"):
            for key in OPERATIONS:
                best = first(measured, results, server, figure, key)
                words = f"first {where}: {FIGURES[figure][0]}, {NAMES[key]}"
                rows.append((words, "heroes", measured["servers"][best][0], best == heroes))
    if "heroes-granian" in results and "floor-granian" in results:
        for key, limit in ABOVE_FLOOR.items():
            times = ratio("heroes-granian", "floor-granian", "cpu", key)
            add(f"CPU, {NAMES[key]}: heroes / the floor, on Granian", limit, times)
    if "heroes-granian" in results and "falcon-granian" in results:
        times = ratio("heroes-granian", "falcon-granian", "cpu", "read")
        add("CPU, read one: heroes / Falcon, on Granian", BELOW_FALCON, times)
    if "growth" in measured:
        for key, values in measured["growth"]["size"].items():
            smallest, *_, largest = values
            words = f"CPU, {NAMES[key]}: with {int(largest):,} heroes / with {int(smallest):,}"
            add(words, GROWN, values[largest] / values[smallest])
        shallow, *_, deep = measured["growth"]["depth"]["after"].values()
        add("CPU, page by `after`: the last / the first", GROWN, deep / shallow)
    return rows


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comparison(measured: Results, part: str) -> str:
    """Render a table per figure, with a row per server. Each cell has its ratio to the reference in parentheses."""
    results = measured[part]

    def cell(name: str, figure: str, form: str, operation: str = "") -> str:
        value = median(results, name, figure, operation)
        shown = form.format(value)
        if name == first(measured, results, measured["servers"][name][1], figure, operation):
            shown = f"**{shown}**"
        if REFERENCE in results and name != REFERENCE:
            shown += f" ({value / median(results, REFERENCE, figure, operation):.2f}×)"
        return shown

    parts = []
    for figure, (head, unit, form) in FIGURES.items():
        rows = [[title(measured, name), *(cell(name, figure, form, key) for key in OPERATIONS)] for name in results]
        parts.append(f"### {head}\n\n{unit}\n\n" + table(["", *NAMES.values()], rows))
    rows = []
    counted = all(result["syncs"] is not None for result in results.values())
    for name in results:
        syncs = [f"{results[name]['syncs']:.1f}"] if counted else []
        rows.append([title(measured, name), *(cell(name, figure, form) for figure, (_, form) in WHOLE.items()), *syncs])
    heads = ["", *(head for head, _ in WHOLE.values()), *(["disk syncs per create"] if counted else [])]
    return "\n".join([*parts, "### Start-up and memory\n\n" + table(heads, rows)])


def summary(measured: Results) -> str:
    """Render the README's table: CPU per request of heroes on both servers and of the tutorial as its users run it."""
    results = measured["sqlite"]

    def cell(name: str, key: str) -> str:
        value, reference = median(results, name, "cpu", key), median(results, REFERENCE, "cpu", key)
        return f"{value:,.0f} µs" + ("" if name == REFERENCE else f" ({reference / value:.1f}×)")

    rows = [
        [title(measured, name), *(cell(name, key) for key in OPERATIONS)]
        for name in ("heroes-gunicorn", "heroes-granian", REFERENCE)
    ]
    return table(["CPU per request", *NAMES.values()], rows)


def setting(measured: Results) -> str:
    """Describe what was run on what."""
    versions: dict[str, None] = {}
    for installed in measured["versions"].values():
        versions.update(dict.fromkeys(f"{name} {version}" for name, version in installed.items()))
    others = "the other" if measured["cores"] == 2 else "the others"
    parts = [name for key, name in PARTS.items() if key in measured]
    few = f" (those of {', '.join(parts)}: {measured['few']})" if parts else ""
    return f"""\
Machine: {measured["cpu"]}, {measured["cores"]} cores, {measured["memory"]}; {measured["kernel"]}; database files on
{measured["filesystem"]}. Python {measured["python"]}, SQLite {measured["sqlite_version"]}, wrk {measured["wrk"]}.
{", ".join(versions)}.

Each server runs alone, with one worker pinned to one core and its access log off. The load generator wrk runs on
{others}, with {measured["connections"]} keep-alive connections. A worker of a WSGI app has {measured["threads"]}
threads: those of gunicorn's gthread worker, or Granian's `--blocking-threads`. heroes on gunicorn uses the repository's
`gunicorn.conf.py`. The table has {measured["rows"]:,} heroes. heroes uses its own table, which never reuses an id; the
other apps use the tutorial's.

The ratio in parentheses is the figure divided by that of the tutorial as its users run it: on uvicorn, with SQLite's
default rollback journal. All other SQLite files are in WAL mode. All have `synchronous=FULL`: every acknowledged write
is on the disk. The best app on each server is in bold, apart from the floor. The floor is the lower bound: bare WSGI
with sqlite3 and orjson, without a framework, validation or a writer lock.

Before a server is timed, its responses to the five operations, and to a request for a missing hero, are compared with
the tutorial's recorded responses. A measurement is rejected if a response is not a success, or if fewer rows were
written than writes acknowledged.

Figures are medians of {measured["rounds"]} rounds of {measured["seconds"]} s, in which the servers take turns{few}.
Memory is the proportional set size after the load. The source of the other apps is in
[`benchmarks/peers`](../../benchmarks/peers).
"""


def render(measured: Results) -> tuple[str, list[str]]:
    """Return the report in Markdown, and the missed targets in words."""
    verdicts = targets(measured)
    missed = [f"{words}: wanted {wanted}, is {value}" for words, wanted, value, met in verdicts if not met]
    missed += [f"not timed: {reason}" for reason in measured["refused"]]
    parts = ["# heroes and its peers\n\nWritten by `make bench`; do not edit.\n", setting(measured)]
    parts += [f"**Not timed:** {reason}\n" for reason in measured["refused"]]
    if verdicts:
        rows = [[words, wanted, value, "met" if met else "**missed**"] for words, wanted, value, met in verdicts]
        parts.append("## Targets\n\n" + TARGETS + table(["target", "wanted", "measured", "result"], rows))
    if "sqlite" in measured:
        parts.append("## On SQLite\n\n![CPU per request](cpu.svg)\n\n" + comparison(measured, "sqlite"))
    if "growth" in measured:
        largest = max(map(int, measured["growth"]["size"]["read"]))
        parts.append("## Growth\n\nCPU per request of heroes on Granian in µs, by the size of the table.\n")
        parts.append(grown(measured["growth"]["size"], "heroes in the table", NAMES))
        parts.append(f"A page of 100 out of {largest:,}, by the number of heroes before it.\n")
        parts.append(grown(measured["growth"]["depth"], "before it", {"offset": "`offset=`", "after": "`after=`"}))
        parts.append("![Growth](growth.svg)\n")
    if "scaling" in measured:
        parts.append(scaled(measured))
    if "postgresql" in measured:
        parts.append(
            "## On PostgreSQL\n\n"
            "PostgreSQL shares wrk's core; its own CPU is not counted. Prepared statements are `?prepare_threshold=5`\n"
            "in heroes' `DATABASE_URL`, and psycopg's default, with which the tutorial runs.\n\n"
            "![CPU per request on PostgreSQL](postgresql.svg)\n"
        )
        parts.append(comparison(measured, "postgresql"))
    return "\n".join(parts), missed


def grown(series: dict[str, dict[str, float]], head: str, names: dict[str, str]) -> str:
    sizes = next(iter(series.values()))
    rows = [[f"{int(size):,}", *(f"{values[size]:,.0f}" for values in series.values())] for size in sizes]
    return table([head, *(names[key] for key in series)], rows)


def scaled(measured: Results) -> str:
    rows = []
    for name, by_operation in measured["scaling"].items():
        for key, runs in by_operation.items():
            one, two = runs["1"], runs["2"]
            rows.append(
                [
                    f"{title(measured, name)}, {NAMES[key]}",
                    f"{one['throughput']:,.0f}",
                    f"{two['throughput']:,.0f}",
                    f"{two['throughput'] / one['throughput']:.2f}×",
                    f"{one['cpu']:,.0f}",
                    f"{two['cpu']:,.0f}",
                    f"{two['busy']:.2f}",
                ]
            )
    heads = ["", "1 worker, req/s", "2 workers, req/s", "factor", "CPU with 1, µs", "with 2, µs", "cores in use"]
    shared = "wrk shares these two cores, which lowers the factor. " if measured["cores"] == 2 else ""
    return f"""\
## Two workers on two cores

{shared}SQLite has one writer at a time, whatever the number of workers.

{table(heads, rows)}
![Scaling](scaling.svg)
"""


def write(folder: Path, measured: Results, text: str) -> None:
    """Write README.md, results.json and the plots to a folder, and the figures of heroes to the project's README."""
    if {"heroes-gunicorn", "heroes-granian", REFERENCE} <= measured.get("sqlite", {}).keys():
        page = README.read_text()
        README.write_text(SPEED.sub(lambda match: f"{match[1]}{summary(measured)}{match[2]}", page))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text)
    (folder / "results.json").write_text(json.dumps(measured, indent=1) + "\n")
    plain: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    matplotlib.rcParams.update(plain | {"svg.hashsalt": "heroes", "svg.fonttype": "none", "font.size": 9})
    for part, name in (("sqlite", "cpu"), ("postgresql", "postgresql")):
        if part in measured:
            save(bars(measured, part), folder / f"{name}.svg")
    if "growth" in measured:
        save(curves(measured["growth"]), folder / "growth.svg")
    if measured.get("scaling"):
        save(pairs(measured), folder / "scaling.svg")


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def bars(measured: Results, part: str) -> Figure:
    """Plot CPU per request: a panel per operation, a bar per server."""
    results = measured[part]
    names = list(reversed(results))
    figure = Figure(figsize=(13, 0.8 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(OPERATIONS), sharey=True)
    colours = [COLOURS.get(measured["servers"][name][0], OTHERS) for name in names]
    for panel, key in zip(panels, OPERATIONS, strict=True):
        values = [median(results, name, "cpu", key) for name in names]
        panel.bar_label(panel.barh(range(len(names)), values, color=colours), fmt="{:,.0f}", padding=2)
        panel.set_title(NAMES[key])
        panel.set_xlim(0, max(values) * 1.35)
        panel.set_xlabel("CPU per request, µs")
    panels[0].set_yticks(range(len(names)), [title(measured, name).replace("*", "") for name in names])
    return figure


def curves(growth: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Plot CPU per request by the size of the table, and by the depth of the page."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = NAMES | {"offset": "offset=N", "after": "after=ID"}
    for axes, series in ((left, growth["size"]), (right, growth["depth"])):
        styles = zip(series.items(), ("o-", "s--", "^:"), ("#0072B2", "#D55E00", "#009E73"), strict=False)
        for (key, values), style, colour in styles:
            axes.plot([int(at) for at in values], list(values.values()), style, color=colour, label=labels[key])
        axes.set_ylabel("CPU per request, µs")
        axes.legend()
    left.set(xscale="log", ylim=(0, None), xlabel="heroes in the table", title="The size of the table")
    right.set(yscale="log", xlabel="heroes before the page of 100", title="The depth of the page")
    right.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def pairs(measured: Results) -> Figure:
    """Plot throughput with one worker and with two: a panel per server."""
    scaling = measured["scaling"]
    figure = Figure(figsize=(5.5 * len(scaling), 3.4), layout="constrained")
    panels = figure.subplots(1, len(scaling), sharey=True, squeeze=False)[0]
    for axes, (name, by_operation) in zip(panels, scaling.items(), strict=True):
        for shift, (workers, colour) in enumerate((("1", OTHERS), ("2", HEROES_COLOUR))):
            places = [index + 0.4 * shift for index in range(len(by_operation))]
            values = [runs[workers]["throughput"] for runs in by_operation.values()]
            label = f"{workers} worker{'s' * shift} on {workers} core{'s' * shift}"
            axes.bar_label(axes.bar(places, values, 0.38, color=colour, label=label), fmt="{:,.0f}", padding=2)
        axes.set_xticks([index + 0.2 for index in range(len(by_operation))], [NAMES[key] for key in by_operation])
        axes.margins(y=0.12)
        axes.set_title(title(measured, name).replace("*", ""))
    panels[0].set_ylabel("requests per second")
    panels[0].legend()
    return figure
