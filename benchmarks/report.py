"""From the results of a run to Markdown, JSON and SVG, and the verdict on each target."""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.load import OPERATIONS

NAMES = {"read": "read one", "list": "list of 100", "create": "create", "patch": "patch", "delete": "delete"}
FIGURES = {
    "cpu": ("CPU per request", "µs, user and system, all processes of the server; less is better", "{:,.0f}"),
    "throughput": ("Throughput", "requests a second; more is better", "{:,.0f}"),
    "p50": ("Median latency", "ms; less is better", "{:.1f}"),
    "p99": ("p99 latency", "ms; less is better", "{:.1f}"),
}
WHOLE = {
    "startup": ("start to first answer, s", "{:.2f}"),
    "worker": ("memory of the worker, MB", "{:.0f}"),
    "total": ("memory of all processes, MB", "{:.0f}"),
}
HEROES, REFERENCE, FLOOR = "heroes", "tutorial-journal", "floor"
FLOORS = {FLOOR, "floor-worker"}
# How many times less CPU than the reference, and how many times the floor's at most.
FASTER = {"read": 2.5, "list": 6.0, "create": 4.5, "patch": 4.0, "delete": 4.0}
ABOVE_FLOOR = {"read": 2.0, "list": 1.7, "create": 2.0, "patch": 2.0, "delete": 2.0}
# What the largest table, or the deepest page by `after`, may cost beside the smallest.
GROWN = 1.25
# Why another server is ahead where one is. A column without a reason is a missed target.
UNFAIR = "its writers take SQLite's lock in no order: most wait less for it, some far longer, as its p99 shows"
ONE_PROCESS = "uvicorn is one process; gunicorn's master comes on top once, and replaces a worker that dies"
BARE = "it loads no schemas, no API document and no migrations"
REASONS: dict[tuple[str, str], str] = {
    ("tutorial", "p50"): UNFAIR,
    ("tutorial-journal", "p50"): UNFAIR,
    ("litestar", "p50"): UNFAIR,
    ("tutorial", "total"): ONE_PROCESS,
    ("tutorial-journal", "total"): ONE_PROCESS,
    ("falcon", "startup"): BARE,
    ("falcon", "worker"): BARE,
    ("falcon", "total"): BARE,
}

# Okabe and Ito's colours, which stay apart for the colour-blind.
COLOURS = {HEROES: "#0072B2", "tutorial": "#D55E00", "tutorial-journal": "#E69F00", **dict.fromkeys(FLOORS, "#999999")}
OTHERS = "#56B4E9"


def median(results: dict[str, Any], server: str, figure: str, operation: str = "") -> float:
    """The median over the rounds of a figure of one operation, or of the server as a whole."""
    result = results[server]["operations"][operation] if operation else results[server]
    return float(statistics.median(result[figure]))


def columns() -> list[tuple[str, str, str]]:
    """Every column of the tables: its name, the figure, the operation."""
    each = [(f"{FIGURES[figure][0]}, {NAMES[key]}", figure, key) for figure in FIGURES for key in OPERATIONS]
    return each + [(title.split(",")[0], figure, "") for figure, (title, _) in WHOLE.items()]


def best(results: dict[str, Any], figure: str, operation: str = "") -> str:
    """The server that is first in a column, the floors left out."""
    peers = [server for server in results if server not in FLOORS]
    choose = max if figure == "throughput" else min
    return choose(peers, key=lambda server: median(results, server, figure, operation))


def targets(measured: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Each target that was measured: its words, what is wanted, what it is, whether it is met."""
    rows: list[tuple[str, str, str, bool]] = []
    results = measured.get("sqlite", {})

    def add(words: str, limit: float, value: float, least: bool = False) -> None:
        wanted = f"{'≥' if least else '≤'} {limit:g}×"
        rows.append((words, wanted, f"{value:.2f}×", value >= limit if least else value <= limit))

    def ratio(over: str, under: str, figure: str, operation: str = "") -> float:
        return median(results, over, figure, operation) / median(results, under, figure, operation)

    if "growth" in measured:
        for key, values in measured["growth"]["size"].items():
            smallest, *_, largest = values
            words = f"CPU, {NAMES[key]}: with {int(largest):,} heroes in that with {int(smallest):,}"
            add(words, GROWN, values[largest] / values[smallest])
        first, *_, last = measured["growth"]["depth"]["after"].values()
        add("CPU, page by `after`: the last in the first", GROWN, last / first)
    if HEROES not in results:
        return rows
    if REFERENCE in results:
        for key, limit in FASTER.items():
            times = ratio(REFERENCE, HEROES, "cpu", key)
            add(f"CPU, {NAMES[key]}: the tutorial's in heroes'", limit, times, least=True)
        for key in OPERATIONS:
            add(f"p99, {NAMES[key]}: heroes' in the tutorial's", 0.5, ratio(HEROES, REFERENCE, "p99", key))
        add("memory of a worker: heroes' in the tutorial's", 1, ratio(HEROES, REFERENCE, "worker"))
        add("start-up: heroes' in the tutorial's", 1, ratio(HEROES, REFERENCE, "startup"))
    if FLOOR in results:
        for key, limit in ABOVE_FLOOR.items():
            add(f"CPU, {NAMES[key]}: heroes' in the floor's", limit, ratio(HEROES, FLOOR, "cpu", key))
    for column, figure, server in ahead(results):
        if (server, figure) not in REASONS:
            rows.append((f"first or explained: {column}", HEROES, server, False))
    return rows


def ahead(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The columns in which heroes is not first, with their figure and the server that is."""
    found = [(column, figure, best(results, figure, operation)) for column, figure, operation in columns()]
    return [each for each in found if each[2] != HEROES]


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def comparison(results: dict[str, Any], titles: dict[str, str]) -> str:
    """One table a figure, every server a line, the first of a column in bold, each with its ratio to heroes."""
    parts = []
    base = HEROES if HEROES in results else next(iter(results))

    def cell(server: str, figure: str, form: str, operation: str = "") -> str:
        value = median(results, server, figure, operation)
        shown = form.format(value)
        if server == best(results, figure, operation):
            shown = f"**{shown}**"
        return shown if server == base else f"{shown} ({value / median(results, base, figure, operation):.2f}×)"

    for figure, (title, unit, form) in FIGURES.items():
        rows = [[titles[server], *(cell(server, figure, form, key) for key in OPERATIONS)] for server in results]
        parts.append(f"### {title}\n\n{unit}\n\n" + table(["", *NAMES.values()], rows))
    rows = []
    counted = all(result["syncs"] is not None for result in results.values())
    for server in results:
        syncs = [f"{results[server]['syncs']:.1f}"] if counted else []
        rows.append([titles[server], *(cell(server, figure, form) for figure, (_, form) in WHOLE.items()), *syncs])
    heads = ["", *(title for title, _ in WHOLE.values()), *(["disk syncs a create"] if counted else [])]
    return "\n".join([*parts, "### Start-up and memory\n\n" + table(heads, rows)])


def setting(results: dict[str, Any]) -> str:
    """What was run on what, in sentences."""
    versions: dict[str, None] = {}
    for installed in results["versions"].values():
        versions.update(dict.fromkeys(f"{name} {version}" for name, version in installed.items()))
    others = "the other" if results["cores"] == 2 else "others"
    return f"""\
Machine: {results["cpu"]}, {results["cores"]} cores, {results["memory"]}; {results["kernel"]}; database files on
{results["filesystem"]}. Python {results["python"]}, SQLite {results["sqlite_version"]}, wrk {results["wrk"]}.
{", ".join(versions)}.

Each server runs alone, with one worker pinned to one core, wrk on {others} with {results["connections"]} connections
that stay open, access logs off. The WSGI servers have gunicorn with {results["threads"]} threads and the settings that
heroes has, in its gthread worker, of which heroes brings its own form; the ASGI ones have uvicorn. The table holds
{results["rows"]:,} heroes. SQLite files are in WAL mode with `synchronous=FULL`: every answered write is on the disk.
The line "rollback journal" is the tutorial with SQLite's default, which is as durable and which its users have. heroes
runs on the table that it makes itself, whose ids are never given out twice, the others on the tutorial's.

A server is timed only after its answers to the five operations, a missing hero included, were compared with the
contract. A run in which one answer was not a success, or in which fewer rows were written than answered, is refused.

Figures are medians of {results["rounds"]} rounds of {results["seconds"]} s, in which the servers take turns; those of
growth and scaling of {results["few"]}. Memory is the proportional set size after the load. In parentheses: times
heroes' figure. Bold: first in the column, the floors left out. A floor is bare WSGI with sqlite3 and orjson: no
framework, no validation, no turns for the writers. The peers' sources are in
[`benchmarks/peers`](../../benchmarks/peers).
"""


def render(results: dict[str, Any]) -> tuple[str, list[str]]:
    """The report in Markdown, and the targets that were missed, in words."""
    titles = results["titles"]
    parts = ["# heroes beside its peers\n\nWritten by `make bench`; do not edit.\n", setting(results)]
    verdicts = targets(results)
    missed = [f"{words}: wanted {wanted}, is {value}" for words, wanted, value, met in verdicts if not met]
    missed += [f"not timed: {reason}" for reason in results["refused"]]
    parts += [f"**Not timed:** {reason}\n" for reason in results["refused"]]
    if "sqlite" in results:
        parts.append("![CPU per request](cpu.svg)\n\n" + comparison(results["sqlite"], titles))
        if HEROES in results["sqlite"]:
            rows = [
                [column, titles[server], REASONS.get((server, figure), "")]
                for column, figure, server in ahead(results["sqlite"])
            ]
            text = table(["column", "first", "why"], rows) if rows else "Nowhere.\n"
            parts.append("## Where another is ahead\n\n" + text)
    if verdicts:
        rows = [[words, wanted, value, "met" if met else "**missed**"] for words, wanted, value, met in verdicts]
        parts.append("## Targets\n\n" + table(["", "wanted", "measured", ""], rows))
    if "growth" in results:
        parts.append("## Growth\n\nCPU per request of heroes in µs, by the size of the table.\n")
        parts.append(grown(results["growth"]["size"], "heroes in the table", NAMES))
        largest = max(map(int, results["growth"]["size"]["read"]))
        parts.append(f"A page of 100 out of {largest:,}, by how many heroes are skipped before it.\n")
        parts.append(grown(results["growth"]["depth"], "skipped", {"offset": "`offset=`", "after": "`after=`"}))
        parts.append("![Growth](growth.svg)\n")
    if "scaling" in results:
        parts.append(scaled(results))
    if "postgresql" in results:
        parts.append("## On PostgreSQL\n\nPostgreSQL shares wrk's cores; its own CPU is not counted.\n")
        parts.append("![CPU per request on PostgreSQL](postgresql.svg)\n\n" + comparison(results["postgresql"], titles))
    return "\n".join(parts), missed


def grown(series: dict[str, dict[str, float]], head: str, names: dict[str, str]) -> str:
    sizes = next(iter(series.values()))
    rows = [[f"{int(size):,}", *(f"{values[size]:,.0f}" for values in series.values())] for size in sizes]
    return table([head, *(names[key] for key in series)], rows)


def scaled(results: dict[str, Any]) -> str:
    rows = []
    for key, runs in results["scaling"].items():
        one, two = runs["1"], runs["2"]
        rows.append(
            [
                NAMES[key],
                f"{one['throughput']:,.0f}",
                f"{two['throughput']:,.0f}",
                f"{two['throughput'] / one['throughput']:.2f}×",
                f"{one['cpu']:,.0f}",
                f"{two['cpu']:,.0f}",
                f"{two['busy']:.2f}",
                f"{2 * one['cpu'] / two['cpu']:.2f}×",
            ]
        )
    shared = "wrk shares these two cores, which holds the measured factor down.\n" if results["cores"] == 2 else ""
    heads = ["", "1 worker, req/s", "2 workers, req/s", "factor", "CPU with 1, µs", "with 2, µs", "cores in use"]
    return f"""\
## Two workers on two cores

{shared}"By CPU" is what two whole cores would give at the CPU per request that was measured with two workers; SQLite
has one writer at a time, so that for writes it is a bound.

{table([*heads, "by CPU"], rows)}
![Scaling](scaling.svg)
"""


def write(folder: Path, results: dict[str, Any], text: str) -> None:
    """Put README.md, results.json and the plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(text)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plain: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    matplotlib.rcParams.update(plain | {"svg.hashsalt": "heroes", "svg.fonttype": "none", "font.size": 9})
    for part, name in (("sqlite", "cpu"), ("postgresql", "postgresql")):
        if part in results:
            save(bars(results[part], results["titles"]), folder / f"{name}.svg")
    if "growth" in results:
        save(curves(results["growth"]), folder / "growth.svg")
    if "scaling" in results:
        save(pairs(results["scaling"]), folder / "scaling.svg")


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def bars(results: dict[str, Any], titles: dict[str, str]) -> Figure:
    """CPU per request: a panel an operation, a bar a server."""
    servers = list(reversed(results))
    figure = Figure(figsize=(12, 0.8 + 0.34 * len(servers)), layout="constrained")
    panels = figure.subplots(1, len(OPERATIONS), sharey=True)
    for panel, key in zip(panels, OPERATIONS, strict=True):
        values = [median(results, server, "cpu", key) for server in servers]
        colours = [COLOURS.get(server, OTHERS) for server in servers]
        panel.bar_label(panel.barh(range(len(servers)), values, color=colours), fmt="{:,.0f}", padding=2)
        panel.set_title(NAMES[key])
        panel.set_xlim(0, max(values) * 1.3)
        panel.set_xlabel("CPU per request, µs")
    panels[0].set_yticks(range(len(servers)), [titles[server].strip("*") for server in servers])
    return figure


def curves(growth: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """CPU per request by the size of the table, and by the depth of the page."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)

    def draw(axes: Axes, series: dict[str, dict[str, float]], names: dict[str, str]) -> None:
        styles = zip(series.items(), ("o-", "s--", "^:"), ("#0072B2", "#D55E00", "#009E73"), strict=False)
        for (key, values), style, colour in styles:
            axes.plot([int(at) for at in values], list(values.values()), style, color=colour, label=names[key])
        axes.set_ylabel("CPU per request, µs")
        axes.legend()

    draw(left, growth["size"], NAMES)
    left.set(xscale="log", ylim=(0, None), xlabel="heroes in the table", title="The size of the table")
    draw(right, growth["depth"], {"offset": "offset=N", "after": "after=ID"})
    right.set(yscale="log", xlabel="heroes skipped before the page of 100", title="The depth of the page")
    right.xaxis.set_major_formatter("{x:,.0f}")
    return figure


def pairs(scaling: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Throughput with one worker and with two."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    for shift, (workers, colour) in enumerate((("1", OTHERS), ("2", COLOURS[HEROES]))):
        places = [index + 0.4 * shift for index in range(len(scaling))]
        values = [runs[workers]["throughput"] for runs in scaling.values()]
        label = f"{workers} worker{'s' * shift} on {workers} core{'s' * shift}"
        axes.bar_label(axes.bar(places, values, 0.38, color=colour, label=label), fmt="{:,.0f}", padding=2)
    axes.set_xticks([index + 0.2 for index in range(len(scaling))], [NAMES[key] for key in scaling])
    axes.margins(y=0.12)
    axes.set_ylabel("requests a second")
    axes.legend()
    return figure
