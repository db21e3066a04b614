"""The page of a report: one HTML file that opens from disk.

Style, plots and images are inside; nothing is fetched and no script runs, and the page's own policy forbids both. The
templates escape every text, so names from files and labels cannot become markup.

Needs the extra `report`.
"""

from __future__ import annotations

from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from perception import __version__
from perception.reports.draw import draw, printable
from perception.reports.images import Photo, Scene
from perception.reports.report import Picture, Report, Table, Value, plain


def render_page(report: Report) -> str:
    """Return the whole page as HTML text."""
    numbers = count()
    environment = Environment(
        loader=PackageLoader("perception.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )

    def picture(one: Picture) -> Markup:
        if isinstance(one, (Scene, Photo)):
            name = "scene.svg" if isinstance(one, Scene) else "photo.html"
            return Markup(environment.get_template(name).render(one=one))
        return Markup(draw(one, f"p{next(numbers)}"))

    environment.globals.update(picture=picture, cell=cell, shares=shares, kind=lambda block: type(block).__name__)
    return environment.get_template("report.html").render(report=report, version=__version__)


def _finalize(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cell(value: Value, form: str = "") -> str:
    """Format a value of a table for the page."""
    value = plain(value)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format(value, form) if form and not isinstance(value, str) else str(value)


def shares(table: Table, row: tuple[Value, ...]) -> list[str]:
    """The style that tints each cell by its share of the row; empty where the table is not shaded."""
    numbers = [value if isinstance(value, (int, float)) and value == value else None for value in row]
    whole = sum(value for value in numbers if value is not None) if table.shaded else 0
    return [f"--share:{value / whole:.2f}" if whole and value is not None else "" for value in numbers]
