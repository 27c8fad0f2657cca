"""Terminal tables: plain for programs, boxed for people, harmless whatever the names are."""

from __future__ import annotations

import io

from traincast.reports.table import Table, show


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_names_cannot_drive_the_terminal() -> None:
    """Escape sequences, line breaks and rich's markup stay text, plain and on a terminal."""
    table = Table(title="", columns=("name",), rows=(("\x1b[31mred\nnext [bold]b[/bold]",),))
    for file in (io.StringIO(), Terminal()):
        show(table, file)
        assert "[bold]b[/bold]" in file.getvalue()
        assert "\x1b[31m" not in file.getvalue()
        assert "red next" in file.getvalue()


def test_plain_where_nobody_looks_on() -> None:
    """No box, no colour, no wrapping in a file or pipe."""
    file = io.StringIO()
    show(Table(title="", columns=("name", "n"), rows=(("a" * 200, "1"),)), file)
    assert file.getvalue() == f"name{' ' * 196}  n\n{'a' * 200}  1\n"
