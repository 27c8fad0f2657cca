"""Who imports whom inside the package, by dotted path, and what the table of packages says of it.

A rule names a package and what it may import: packages or modules, each with all that lies in it, and with
`!` before it what of these it may not. What lies in the same package is free. A package may only name
packages that stand before it in the table, so arrows run one way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import networkx as nx

Sources = Mapping[str, str]
"""By module without the leading `traincast.`: its source."""

Rules = Mapping[str, tuple[str, ...]]
"""By package, lowest first: what it may import."""


def read_sources(root: Path, folders: tuple[str, ...]) -> dict[str, str]:
    """Every module below ``folders`` of ``root``; packages by their own name."""
    found = {}
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts)] = path.read_text()
    return found


def imported(module: str, source: str) -> Iterator[str]:
    """Names that ``module`` imports, wherever in it, without the leading `traincast.`; others as they are."""
    package = ["traincast", *module.split(".")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{whole}.{alias.name}".removeprefix("traincast.") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("traincast.") for alias in node.names)


def import_graph(sources: Sources) -> nx.DiGraph:
    """An arrow from each module to every module of ``sources`` that it imports something of."""
    graph = nx.DiGraph()
    graph.add_nodes_from(sources)
    for module, source in sources.items():
        for name in imported(module, source):
            target = _module_of(name, sources)
            if target and target != module:
                graph.add_edge(module, target)
    return graph


def _module_of(name: str, sources: Sources) -> str | None:
    """The module that ``name`` is, or is defined in."""
    for known in (name, name.rpartition(".")[0]):
        for module in (known, f"{known}.__init__"):
            if module in sources:
                return module
    return None


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """Groups of modules that import each other."""
    return sorted(sorted(group) for group in nx.strongly_connected_components(graph) if len(group) > 1)


def package_of(module: str, rules: Rules) -> str:
    """The longest package of ``rules`` that ``module`` lies in; itself if there is none."""
    return max((name for name in rules if _within(module, name)), key=len, default=module)


def broken_rules(graph: nx.DiGraph, rules: Rules) -> list[str]:
    """Arrows that no rule allows, as `a imports b`."""
    return sorted(
        f"{module} imports {target}" for module, target in graph.edges if not _allowed(module, target, rules)
    )


def _allowed(module: str, target: str, rules: Rules) -> bool:
    package = package_of(module, rules)
    if package in rules and package == package_of(target, rules):
        return True
    may = rules.get(package, ())
    refused = any(_within(target, name[1:]) for name in may if name.startswith("!"))
    return not refused and any(_within(target, name) for name in may)


def _within(module: str, name: str) -> bool:
    return f"{module}.".startswith(f"{name}.")


def upward_rules(rules: Rules) -> list[str]:
    """Rules that name a package which does not stand before their own."""
    order = list(rules)
    return [
        f"{package} may import {name}"
        for place, package in enumerate(order)
        for name in may_of(rules[package])
        if package_of(name, rules) not in order[:place]
    ]


def unused_rules(graph: nx.DiGraph, rules: Rules) -> list[str]:
    """What may be imported and is not."""
    return [
        f"{package} may import {name}"
        for package, may in rules.items()
        for name in may_of(may)
        if not any(
            package_of(module, rules) == package and _within(target, name) for module, target in graph.edges
        )
    ]


def may_of(may: tuple[str, ...]) -> list[str]:
    """The names of a rule without its exceptions."""
    return [name for name in may if not name.startswith("!")]
