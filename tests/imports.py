"""Reads the imports of a package from its source, for the tests of layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    """One import: of a module of the package, or of a third party (`inside` is False)."""

    module: str
    target: str
    line: int
    inside: bool


def sources(root: Path) -> dict[str, str]:
    """Return the source of every module of the package at `root`, by its dotted name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts)] = path.read_text("utf-8")
    return found


def plain(module: str) -> str:
    """Return the name by which a module is imported: `pq.web.__init__` is `pq.web`."""
    return module.removesuffix(".__init__")


def imports(code: Mapping[str, str]) -> list[Import]:
    """Return all imports of a package, at the top of a module, inside functions, and for types alone."""
    return [found for module in code for found in _imports_of(module, code)]


def _imports_of(module: str, code: Mapping[str, str]) -> Iterator[Import]:
    known = {plain(name) for name in code}
    name = plain(module)
    package = name if module.endswith(".__init__") else name.rpartition(".")[0]
    top = package.split(".")[0]
    for node in ast.walk(ast.parse(code[module])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, alias.name.split(".")[0] == top)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                deeper = f"{base}.{alias.name}"
                target = deeper if deeper in known else base
                yield Import(name, target, node.lineno, base.split(".")[0] == top)


def graph(found: list[Import]) -> dict[str, set[str]]:
    """Return which modules of the package each module imports.

    A module inside a package does not depend on that package's `__init__` by bearing its name.
    """
    edges: dict[str, set[str]] = {}
    for one in found:
        if one.inside and one.module != one.target and not one.module.startswith(one.target + "."):
            edges.setdefault(one.module, set()).add(one.target)
            edges.setdefault(one.target, set())
    return edges


def cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other (strongly connected components, Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return groups
