"""Draw a terminal's text as an SVG: `tmux capture-pane -e -p | python -m scripts.docs.terminal TITLE`."""

import io
import re
import sys

from rich.console import Console
from rich.text import Text


def svg_of(screen: str, title: str) -> str:
    """Draw a screen; the picture loads nothing, so the reader's own monospaced font is used."""
    lines = [Text.from_ansi(line) for line in screen.rstrip().splitlines()]
    console = Console(record=True, width=max(line.cell_len for line in lines), file=io.StringIO())
    for line in lines:
        console.print(line, no_wrap=True, crop=False)
    svg = console.export_svg(title=title)
    return re.sub(r"\s*@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    sys.stdout.write(svg_of(sys.stdin.read(), sys.argv[1]))
