"""The house: imports point down, never up, and nowhere in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pq

ROOT = Path(pq.__file__).parent

LAYERS: dict[str, int] = {
    **dict.fromkeys(("__init__", "errors", "clock", "loops"), 0),
    **dict.fromkeys(("model", "config"), 1),
    "logs": 2,
    **dict.fromkeys(("broker", "execution"), 3),
    "producer": 4,
    "worker": 5,
    "server": 6,
}
"""Rooms and their floors; whatever is not named here is on the top floor (api, app, cli, jobs, …)."""
TOP = 7
SIBLINGS = (("broker", "execution"), ("execution", "broker"))


def modules() -> dict[str, Path]:
    """All modules of the package by their dotted names."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("pq", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The part of the house a module belongs to: `pq.broker.redis.link` is in `broker`."""
    return module.split(".")[1] if "." in module else "__init__"


def floor(module: str) -> int:
    return LAYERS.get(room(module), TOP)


def imports(module: str) -> Iterator[tuple[str, int, bool, bool]]:
    """What a module imports of the package: (module, line, inside a function, for types alone)."""
    path = MODULES[module]
    tree = ast.parse(path.read_text("utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, inside: bool, typing: bool) -> Iterator[tuple[str, int, bool, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    if alias.name.split(".")[0] == "pq":
                        yield alias.name, child.lineno, inside, typing
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    up = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*up, base] if base else up)
                if base.split(".")[0] == "pq":
                    for alias in child.names:
                        deeper = f"{base}.{alias.name}"
                        yield (deeper if deeper in MODULES else base), child.lineno, inside, typing
            else:
                function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
                yield from walk(child, inside or function, typing or types)

    yield from walk(tree, False, False)


def test_there_is_a_house_to_look_at() -> None:
    """The parser finds the modules, and imports of all kinds in them."""
    assert {"pq.errors", "pq.model.task", "pq.broker.redis.broker"} <= MODULES.keys()
    seen = {name for name, *_ in imports("pq.broker.redis.broker")}
    assert {"pq.errors", "pq.broker.contract.broker", "pq.config"} <= seen
    assert any(inside for module in MODULES for _, _, inside, _ in imports(module))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """No module imports from a higher floor, nor from a sibling, not even within a function or for types."""
    wrong = []
    for target, line, _, _ in imports(module):
        if target == "pq":
            continue  # for the version
        if floor(target) > floor(module):
            wrong.append(
                f"{MODULES[module]}:{line}: floor {floor(module)} imports {target} of floor {floor(target)}"
            )
        if (room(module), room(target)) in SIBLINGS:
            wrong.append(f"{MODULES[module]}:{line}: {room(module)} and {room(target)} are siblings")
    assert not wrong, "\n".join(wrong)


def test_no_circles() -> None:
    """What modules import when they are imported forms no circle."""
    graph = {
        module: {
            target
            for target, _, inside, typing in imports(module)
            # A package's __init__ does not depend on itself through its own modules' names.
            if not inside and not typing and target != module and not module.startswith(target + ".")
        }
        for module in MODULES
    }
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        if module in done:
            return
        assert module not in path, "a circle: " + " → ".join([*path[path.index(module) :], module])
        path.append(module)
        for target in sorted(graph.get(module, ())):
            visit(target)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)
