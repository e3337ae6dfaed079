"""The FastAPI tutorial app itself, unchanged, at the durability of the others. Run from `.venv-oracle`."""

from oracle import app  # type: ignore[import-not-found]  # noqa: F401  (tests/contract/oracle.py)

from benchmarks.peers import durable  # noqa: F401  (before the app makes its engine)
