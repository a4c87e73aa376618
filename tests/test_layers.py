"""The layers of the package: imports point down, never up, and form no cycle."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from imports import Import, cycles, graph, imports, plain, sources

import pq

CODE = sources(Path(pq.__file__).parent)
MODULES = sorted(plain(module) for module in CODE)
IMPORTS = imports(CODE)

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "errors", "clock", "loops", "explanations"),
    ("model", "config"),
    ("logs",),
    ("broker", "execution", "local"),
    ("producer",),
    ("worker",),
    ("server",),
    ("cli", "describe"),
    ("tui", "web"),
    ("commands",),
    ("app",),
    ("api", "testing"),
    ("demo", "jobs", "__main__"),
)
"""Every package and module of `pq`, lowest layer first. A new one fails until it has a place here."""

SIBLINGS = (frozenset({"broker", "execution"}), frozenset({"broker", "local"}), frozenset({"tui", "web"}))
"""Packages of one layer that must not import each other."""

PLACES: dict[str, tuple[str, ...]] = {
    "redis": ("pq.broker.redis",),
    "hiredis": ("pq.broker.redis",),
    "starlette": ("pq.web",),
    "jinja2": ("pq.web",),
    "uvicorn": ("pq.web", "pq.commands.web"),
    "textual": ("pq.tui",),
    "rich": ("pq.tui",),
    "cronsim": ("pq.model.schedule",),
    "cryptography": ("pq.model.seal",),
    "greenlet": ("pq.execution.green_io",),
    "httpx2": ("pq.execution.http",),
    "uvloop": ("pq.loops",),
    "msgpack": ("pq.model", "pq.producer", "pq.worker", "pq.server"),
    "IPython": ("pq.commands.shell",),
    "pytest": ("pq.testing",),
}
"""Third parties, and the only modules or packages that may import them."""


def package(module: str) -> str:
    """Return the package or module below `pq` that a module belongs to: `broker` of `pq.broker.redis.link`."""
    return module.split(".")[1] if "." in module else "__init__"


def layer(module: str) -> int:
    """Return the number of a module's layer; 0 is the lowest."""
    return next(number for number, packages in enumerate(LAYERS) if package(module) in packages)


def test_all_kinds_of_imports_are_found() -> None:
    """The reader finds the modules and their imports: relative ones, those inside functions, third parties."""
    assert {"pq.errors", "pq.model.task", "pq.broker.redis.work"} <= set(MODULES)
    pairs = {(one.module, one.target) for one in IMPORTS}
    assert ("pq.broker.redis.failures", "pq.errors") in pairs
    assert ("pq.broker.redis.link", "hiredis") in pairs
    assert ("pq.commands.web", "uvicorn") in pairs


def test_every_package_has_a_layer_of_its_own() -> None:
    """`LAYERS` names each package and module once."""
    named = [name for packages in LAYERS for name in packages]
    assert sorted(named) == sorted(set(named))
    assert {package(module) for module in MODULES} - set(named) == set(), "give these a place in LAYERS"
    assert set(named) - {package(module) for module in MODULES} == set(), (
        "these are gone: take them out of LAYERS"
    )


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """No module imports from a higher layer or from a sibling, not even inside a function or for types."""
    wrong = []
    for _, target, line, inside in (one for one in IMPORTS if one.module == module):
        if not inside or target == "pq":  # for the version
            continue
        if layer(target) > layer(module):
            wrong.append(f"line {line}: layer {layer(module)} imports {target} of layer {layer(target)}")
        if {package(module), package(target)} in SIBLINGS:
            wrong.append(f"line {line}: {package(module)} and {package(target)} are siblings")
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other() -> None:
    """Imports form no cycle: those inside functions and those for types alone are counted too."""
    assert cycles(graph(IMPORTS)) == []


def test_no_packages_import_each_other() -> None:
    """The same for the packages as wholes."""
    edges: dict[str, set[str]] = {}
    for source, targets in graph(IMPORTS).items():
        edges.setdefault(package(source), set()).update(
            package(target) for target in targets if package(target) != package(source)
        )
    assert cycles(edges) == []


@pytest.mark.parametrize(
    "importing",
    [
        pytest.param("from .b import name", id="at the top"),
        pytest.param("def f():\n    from .b import name", id="inside a function"),
        pytest.param("if TYPE_CHECKING:\n    from .b import name", id="for types alone"),
        pytest.param("import p.b", id="absolute"),
        pytest.param("from . import b", id="of the package"),
    ],
)
def test_a_planted_cycle_is_found(importing: str) -> None:
    """Whatever way the import is written."""
    code = {"p.__init__": "", "p.a": importing, "p.b": "from .c import name", "p.c": "from .a import name"}
    assert cycles(graph(imports(code))) == [["p.a", "p.b", "p.c"]]


def misplaced(found: list[Import]) -> list[str]:
    """Return the imports of third parties that stand outside of their place."""
    wrong = []
    for module, target, line, inside in found:
        name = target.split(".")[0]
        if inside or name in sys.stdlib_module_names:
            continue
        if not any(module == place or module.startswith(place + ".") for place in PLACES.get(name, ())):
            wrong.append(f"{module}, line {line}: {target}")
    return wrong


def test_third_parties_are_imported_in_their_place_alone() -> None:
    """redis-py below `pq.broker.redis`, starlette below `pq.web`, textual below `pq.tui`."""
    assert misplaced(IMPORTS) == []


def test_a_third_party_out_of_place_is_found() -> None:
    """The same holds for a third party that has no place."""
    code = {"pq.worker.service": "import redis\nfrom starlette.applications import Starlette\nimport numpy"}
    assert misplaced(imports(code)) == [
        "pq.worker.service, line 1: redis",
        "pq.worker.service, line 2: starlette.applications",
        "pq.worker.service, line 3: numpy",
    ]
