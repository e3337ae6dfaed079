"""What the README says is so: its commands, its tables, its example."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from conftest import ROOT, Server

from heroes.config import Settings

README = (ROOT / "README.md").read_text()


def cell(value: object) -> str:
    """A default as the table shows it."""
    if value is None:
        return ""
    return f"`{'on' if value is True else 'off' if value is False else value}`"


def settings_table() -> str:
    """The table that the README must have: one line per setting of heroes/config.py."""
    rows = [
        f"| `{field.data_key}` | {cell(field.load_default)} | {field.metadata['description']} |"
        for field in Settings().fields.values()
    ]
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows])


def ratios_table() -> str:
    """The table that the README must have: CPU per request in times of heroes', from the last `make bench`."""
    results = json.loads((ROOT / "docs/benchmarks/results.json").read_text())
    cpu = {
        server: [median(figures["cpu"]) for figures in result["operations"].values()]
        for server, result in results["sqlite"].items()
    }
    rows = [
        f"| {results['titles'].get(server, server)} | "
        + " | ".join(f"{theirs / ours:.1f}×" for theirs, ours in zip(values, cpu["heroes"], strict=True))
        + " |"
        for server, values in cpu.items()
        if server != "heroes"
    ]
    heads = "| CPU per request | read one | list of 100 | create | patch | delete |\n|---|---:|---:|---:|---:|---:|"
    return "\n".join([heads, *rows])


def test_the_ratios_are_those_of_the_last_benchmark() -> None:
    assert ratios_table() in README


def test_the_settings_are_the_codes() -> None:
    assert settings_table() in README


def test_the_curl_lines_answer_what_is_printed(serve: Callable[..., Server]) -> None:
    server = serve()
    tour = "\n".join(re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
    steps = re.split(r"^\$ ", tour, flags=re.MULTILINE)[1:]

    assert len(steps) > 15
    for step in steps:
        command, _, expected = step.partition("\n")
        command = command.replace("http://127.0.0.1:8000", server.url)
        got = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
        assert got.replace("\r", "").split() == expected.split(), command


def test_the_example_of_a_test_passes(tmp_path: Path, pytester: pytest.Pytester) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    pytester.makepyfile(example)

    pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist").assert_outcomes(passed=1)


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^):#]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_target_that_it_names_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {*re.findall(r"\bmake ([a-z]+)\b", README)} - {"is"}

    assert {"run", "test", "lint", "bench"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
