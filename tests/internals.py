"""Print each use of a library's internals in the product's code: `python -m tests.internals`. Exits with 1 at any.

Counted are attributes and overridden methods that start with an underscore, replaced attributes of modules, and eval.
The rule is in CONTRIBUTING.md.
"""

import ast
import sys
from collections.abc import Iterator

from tests.constants import ROOT

OVERRIDABLE = {"_deserialize", "_serialize", "_validate"}  # marshmallow documents these for fields
MAX_LINES = 250


def internals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the kind of each use."""
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    } - {"g"}  # Flask's place for values of a request
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if is_private(name) and name not in OVERRIDABLE:
                yield node.lineno, f"uses .{name}"
            case ast.ClassDef(bases=[_, *_]):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and is_private(item.name) and item.name not in OVERRIDABLE:
                        yield item.lineno, f"overrides {item.name}"
            case ast.Call(func=ast.Name(id="eval" | "exec")):
                yield node.lineno, "evaluates text"
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=name))]) if name in imported:
                yield node.lineno, f"replaces an attribute of {name}"


def is_private(name: str) -> bool:
    """Return whether a name starts with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def main() -> int:
    """Print what is found, and the files that are too long; return the exit code."""
    found = []
    for path in [*(ROOT / "heroes").rglob("*.py"), ROOT / "gunicorn.conf.py", ROOT / "wsgi.py"]:
        text = path.read_text()
        found += [f"{path.relative_to(ROOT)}:{line}: {kind}" for line, kind in internals(ast.parse(text))]
        if len(text.splitlines()) > MAX_LINES:
            found.append(f"{path.relative_to(ROOT)}: longer than {MAX_LINES} lines")
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
