"""Writes docs/api.md from the docstrings of all public names; `--check` compares it with them."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import traincast as tc

PATH = Path(__file__).with_name("api.md")
HEAD = """# Python API

`import traincast as tc`. Made of the docstrings by `docs/make_api.py`; every example is run by the tests.
"""


def main() -> None:
    text = page()
    if "--check" not in sys.argv[1:]:
        PATH.write_text(text)
    elif not PATH.is_file() or PATH.read_text() != text:
        sys.exit(f"{PATH} is not what the docstrings say; run `python docs/make_api.py`")


def page() -> str:
    """Functions, then classes, then values, by name; other names of one thing are told with it."""
    aliases: dict[int, list[str]] = {}
    for name in tc.__all__:
        aliases.setdefault(id(getattr(tc, name)), []).append(name)
    parts: dict[str, list[str]] = {"Functions": [], "Classes": [], "Values": []}
    for name in sorted(tc.__all__):
        thing = getattr(tc, name)
        if getattr(thing, "__name__", name) != name and not inspect.isclass(thing):
            continue
        also = [other for other in aliases[id(thing)] if other != name]
        kind = "Classes" if inspect.isclass(thing) else "Functions" if callable(thing) else "Values"
        parts[kind].append(entry(name, thing, also))
    return "\n".join([HEAD, *(f"## {kind}\n\n" + "\n".join(own) for kind, own in parts.items())])


def entry(name: str, thing: object, also: list[str]) -> str:
    """One name: its signature, what it says of itself, and other names it has."""
    if isinstance(thing, tuple):
        return f"### {name}\n\n{', '.join(f'`{word}`' for word in thing)}\n"
    if not callable(thing):
        rows = [f"- `{key}`: {', '.join(f'`{word}`' for word in words)}" for key, words in thing.items()]  # type: ignore[attr-defined]
        return f"### {name}\n\n" + "\n".join(rows) + "\n"
    signature = "" if inspect.isclass(thing) else f"```python\n{name}{call(thing)}\n```\n\n"
    other = f"Also as {', '.join(f'`{one}`' for one in also)}.\n\n" if also else ""
    return f"### {name}\n\n{signature}{other}{fenced(inspect.getdoc(thing) or '')}\n"


def call(thing: object) -> str:
    """The arguments, one a line where they are long."""
    signature = inspect.signature(thing)  # type: ignore[arg-type]
    words, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keyword_only = True
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            words.append("*")
            keyword_only = True
        words.append(argument(parameter))
    text = f"({', '.join(words)})"
    return text if len(text) <= 90 else "\n".join(["(", *(f"    {word}," for word in words), ")"])


def argument(parameter: inspect.Parameter) -> str:
    """Name, type and default; a function by its name."""
    star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{star}{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    return f"{text} = {default.__name__.strip('<>') if inspect.isfunction(default) else repr(default)}"


def fenced(text: str) -> str:
    """Examples as code, the list of errors as one."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(">>>") and not inside:
            inside = True
            lines.append("```python")
        elif inside and not line.strip():
            inside = False
            lines.append("```")
        if line.startswith("    ") and not inside:
            line = f"- {line.strip()}" if line.startswith("    ") and line[4] != " " else f"  {line.strip()}"
        elif line == "Raises:":
            line = "Raises:\n"
        lines.append(line if inside else line.replace("``", "`"))
    return "\n".join([*lines, *(["```"] if inside else [])])


if __name__ == "__main__":
    main()
