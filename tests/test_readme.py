"""The documentation is correct: commands, tables, examples, links and names."""

import configparser
import json
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest

from heroes.config import Settings
from tests.constants import ROOT, on_gunicorn
from tests.servers import Server

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
MAX_LINES = 150

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def console_steps(text: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console examples, each with the output that it shows."""
    steps = re.split(r"^\$ ", "".join(code_blocks(text, "console")), flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def anchors(page: Path) -> set[str]:
    """Return the fragments that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def settings_table() -> str:
    """Return the table of settings as docs/settings.md must have it."""

    def cell(value: object) -> str:
        return "" if value is None else f"`{'on' if value is True else 'off' if value is False else value}`"

    rows = [
        f"| `{field.data_key or field.name}` | {cell(field.load_default)} | {field.metadata['description']} |"
        for field in Settings().fields.values()
    ]
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows, ""])


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


@on_gunicorn
@pytest.mark.parametrize(("name", "least"), [("README.md", 10), ("docs/api.md", 15)])
def test_console_examples_print_what_they_show(name: str, least: int, gunicorn: Server, tmp_path: Path) -> None:
    steps = console_steps((ROOT / name).read_text())

    assert len(steps) >= least
    for command, expected in steps:
        got = subprocess.run(
            command.replace("http://127.0.0.1:8000", gunicorn.url),
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        assert got.replace("\r", "").split() == expected.split(), command


def test_the_settings_table_is_that_of_the_code() -> None:
    assert settings_table() in (ROOT / "docs" / "settings.md").read_text()


def test_the_settings_example_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = code_blocks((ROOT / "docs" / "settings.md").read_text(), "python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    exec(f"from heroes import create_app\n{example}", names)

    app = names["app"]
    assert app.config["MAX_CONTENT_LENGTH"] == 64 * 1024
    assert app.config["SQLALCHEMY_ENGINE_OPTIONS"]["pool_size"] == 7


def test_the_example_of_a_test_passes(pytester: pytest.Pytester) -> None:
    [example] = code_blocks(README, "python")
    pytester.makepyfile(example)

    pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist").assert_outcomes(passed=1)


@each_page
def test_links_are_not_broken(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    tops = {path.relative_to(ROOT / "docs").parts[0] for path in PAGES if ROOT / "docs" in path.parents}

    assert [top for top in tops - {"README.md"} if f"({top}" not in index] == []


@each_page
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    code = " ".join(re.findall(r"`[^`\n]+`|^    .*$", page.read_text(), re.MULTILINE))
    targets = set(re.findall(r"\bmake ((?:[a-z]+ ?)+)", code))

    for target in " ".join(targets).split():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout

    assert re.findall(r"^make ([a-z]+) +\S", shown, re.MULTILINE) == phony.split()


def test_every_dependency_has_a_reason() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = re.findall(r"^([a-z-]+)", setup["options"]["install_requires"].strip(), re.MULTILINE)
    table = re.findall(r"^\| dependency \| why \|\n(.*?)\n\n", README, re.DOTALL | re.MULTILINE)[0].lower()

    assert required
    assert [name for name in required if name not in table] == []


def test_the_figures_are_those_of_the_last_benchmark() -> None:
    measured = json.loads((ROOT / "docs/benchmarks/results.json").read_text())["sqlite"]
    figures = {
        name: [statistics.median(each["cpu"]) for each in measured[name]["operations"].values()]
        for name in ("heroes-gunicorn", "heroes-granian", "tutorial-uvicorn")
    }
    [shown] = re.findall(r"<!-- speed -->\n(.*?)<!-- /speed -->", README, re.DOTALL)

    rows = [re.findall(r"([0-9,]+) µs", line) for line in shown.splitlines()[2:]]
    assert rows == [[f"{value:,.0f}" for value in values] for values in figures.values()]


def test_scaling_calculates_with_the_last_benchmark() -> None:
    measured = json.loads((ROOT / "docs/benchmarks/results.json").read_text())["sqlite"]
    page = (ROOT / "docs/scaling.md").read_text()
    load = []
    for column, name in enumerate(("heroes-gunicorn", "heroes-granian"), 1):
        cpu = {key: statistics.median(each["cpu"]) for key, each in measured[name]["operations"].items()}
        write = statistics.mean(cpu[key] for key in ("create", "patch", "delete"))
        for symbol, value in (("R", cpu["read"]), ("L", cpu["list"]), ("W", write)):
            [line] = re.findall(rf"^\| \*{symbol}\* \|.*", page, re.MULTILINE)
            shown = int(line.split("|")[2 + column].replace(",", ""))
            assert abs(shown - value) <= 5, (name, symbol, value)
        load.append(0.8 * cpu["read"] + 0.1 * cpu["list"] + 0.1 * write + 100)

    assert re.findall(r"([0-9]+)\sµs on\s", page) == [f"{round(value, -1):.0f}" for value in load]
    for requests in (1_000, 100_000):
        [line] = re.findall(rf"^\| {requests:,} \|.*", page, re.MULTILINE)
        for shown, value in zip(line.split("|")[2:4], load, strict=True):
            assert float(shown) == pytest.approx(requests * value / 1e6 / 0.6, rel=0.03)
