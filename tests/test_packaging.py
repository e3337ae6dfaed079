"""The wheel is complete: it works without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import heroes
from tests.constants import ROOT

TRIAL = """
from heroes import create_app
app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite:///trial.db"})
client = app.test_client()
assert client.post("/heroes/", json={"name": "Deadpond", "secret_name": "Dive Wilson"}).status_code == 200
for path in ("/docs", "/static/docs.js", "/openapi.json", "/health/ready"):
    with client.get(path) as response:
        assert response.status_code == 200, path
import heroes
print(heroes.__file__)
"""

pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy of what git has."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in files.split("\0"):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "benchmarks/", "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*build, "--wheel-dir", str(target)], cwd=source, check=True, timeout=60)
    [path] = target.iterdir()
    return path


def test_wheel_has_the_version_and_only_the_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert wheel.name == f"heroes-{heroes.__version__}-py3-none-any.whl"
    assert {name.split("/")[0] for name in names} == {"heroes", f"heroes-{heroes.__version__}.dist-info"}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "heroes").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= set(names)


def test_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    trial = subprocess.run(
        [sys.executable, "-c", TRIAL],
        cwd=tmp_path / "elsewhere",
        env={"PYTHONPATH": str(tmp_path / "site"), "ACCESS_LOG": "off"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert trial.returncode == 0, trial.stderr
    assert trial.stdout.strip() == str(tmp_path / "site" / "heroes" / "__init__.py")
    assert (tmp_path / "elsewhere" / "trial.db").exists()


def test_gunicorn_runs_an_installed_package(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for name in ("wsgi.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, tmp_path)
    checked = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config", "wsgi:app"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "METRICS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert checked.returncode == 0, checked.stderr
