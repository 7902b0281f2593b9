"""Plain tables: columns two spaces apart, numbers to the right, and never cut to the width of a screen."""

from collections.abc import Sequence


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under a header; a column of numbers is set to the right."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in table:
        cells = zip(row, widths, right, strict=True)
        padded = [cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Write a number for reading: whole ones whole, others to four digits, nothing as a dash."""
    if value is None or value != value:
        return "-"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.rstrip("%").replace(".", "").replace("-", "").replace("e", "").isdigit()
