"""What the HTML pages share: the templates' environment, escaping, and plotly inlined once.

A page opens from a disk without a network; a content security policy in its head forbids the rest.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from . import formats


def render(template: str, values: dict[str, Any]) -> str:
    """The page that ``template`` makes of ``values``; `plotly_js` is added. Undefined names are errors and
    everything is escaped, whatever the file is called."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": formats.seconds,
        "size": formats.size,
        "percent": formats.percent,
        "error": formats.error,
        "count": formats.count,
        "flops": formats.flops,
        "one_line": formats.printable,
    }
    return environment.get_template(template).render(values, plotly_js=_plotly_js())


def _plotly_js() -> Any:
    """The library as plotly's package ships it, marked as safe to inline."""
    from markupsafe import Markup

    source = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    return Markup(source.replace("</script", "<\\/script"))  # noqa: S704  our own dependency's code
