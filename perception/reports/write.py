"""Write a report once as a page, as JSON and as CSV, so that the numbers cannot differ.

DIR/report.html          the page
DIR/report.json          every table and curve at full precision
DIR/tables/<name>.csv    the same, one file per table
DIR/evidence.npz         what each frame contributed, for `perception evaluate compare`
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from perception import __version__
from perception.errors import MissingDependencyError
from perception.files import write_atomically
from perception.reports.report import FORMAT, FORMAT_VERSION, Report, Table, Value, plain


def require_page_packages() -> None:
    """Check that a page can be written, before hours of evaluation.

    Raises:
        MissingDependencyError: the extra `report` is not installed.
    """
    for module, package in (("jinja2", "Jinja2"), ("matplotlib", "matplotlib")):
        if find_spec(module) is None:
            raise MissingDependencyError(package, "report", "--report")


def render_json(report: Report) -> str:
    """Return facts, warnings and every table at full precision as JSON."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "perception_version": __version__,
        "task": report.task,
        "title": report.title,
        "facts": {name: plain(value) for name, value in report.facts.items()},
        "warnings": list(report.warnings),
        "tables": {table.key: table.records() for table in report.tables()},
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def render_csv(table: Table) -> str:
    """Return one table as CSV; NaN is empty, and text that a spreadsheet would run gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([_csv_cell(plain(value)) for value in row] for row in table.rows)
    return out.getvalue()


def _csv_cell(value: Value) -> Value:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def write_report(report: Report, directory: Path) -> Path:
    """Write page, JSON, CSV and evidence into `directory`, which is made if need be; returns the page's path.

    `report.json` of an earlier report is removed before the first file is written, and the new one is the last. So a
    folder with a `report.json` holds one whole report, however a run may end.

    Raises:
        MissingDependencyError: the extra `report` is not installed.
        UserError: the directory cannot be written.
    """
    require_page_packages()
    from perception.reports.page import render_page

    keys = [table.key for table in report.tables()]
    if len(set(keys)) != len(keys):
        raise ValueError(f"two tables share a key: {sorted(k for k in keys if keys.count(k) > 1)}")

    def write(name: str, content: str | bytes) -> None:
        # names of files may hold bytes that are not UTF-8
        encoded = content.encode(errors="replace") if isinstance(content, str) else content
        write_atomically(directory / name, encoded, do="--report DIR with another DIR")

    files: dict[str, str | bytes] = {f"tables/{table.key}.csv": render_csv(table) for table in report.tables()}
    if report.evidence:
        packed = io.BytesIO()
        np.savez_compressed(packed, **report.evidence)  # type: ignore[arg-type]
        files["evidence.npz"] = packed.getvalue()
    files |= {"report.html": render_page(report), "report.json": render_json(report)}
    with contextlib.suppress(OSError):  # nothing there, or not writable, which the first file says
        (directory / "report.json").unlink()
    for name, content in files.items():
        write(name, content)
    return directory / "report.html"
