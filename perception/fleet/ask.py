"""Questions about the tables of a fleet, in SQL through DuckDB: ready ones, and your own."""

from __future__ import annotations

import difflib
import json
from typing import Any, NamedTuple

from perception.errors import MissingDependencyError, UserError
from perception.fleet.storage import Store
from perception.redact import printable


class Question(NamedTuple):
    """A ready question."""

    text: str
    sql: str


QUESTIONS = {
    "close-approaches": Question(
        "time to collision under 2 s in three frames or more: the closest moment of each object",
        """SELECT drive, source, track_id, any_value(class) AS class, arg_min(frame_id, ttc_s) AS frame_id,
                  arg_min(timestamp_ns, ttc_s) AS timestamp_ns, min(ttc_s) AS ttc_s,
                  arg_min(distance_m, ttc_s) AS distance_m
           FROM tracks WHERE state = 'confirmed' AND ttc_s < 2.0
           GROUP BY drive, source, track_id HAVING count(*) >= 3 ORDER BY ttc_s, drive, source, track_id""",
    ),
    "cut-ins": Question(
        "a vehicle that comes from more than 2 m beside to less than 1.2 m within 2 s, 2 to 40 m ahead",
        """WITH beside AS (
             SELECT *, max(abs(x_m)) OVER (PARTITION BY drive, source, track_id ORDER BY timestamp_ns
                       RANGE BETWEEN 2000000000 PRECEDING AND CURRENT ROW) AS furthest_m
             FROM tracks WHERE state = 'confirmed' AND class NOT IN ('Pedestrian', 'Person') AND x_m IS NOT NULL)
           SELECT drive, source, track_id, any_value(class) AS class, min(frame_id) AS frame_id,
                  min(timestamp_ns) AS timestamp_ns, arg_min(z_m, timestamp_ns) AS distance_m
           FROM beside WHERE abs(x_m) < 1.2 AND furthest_m > 2.0 AND z_m BETWEEN 2 AND 40
           GROUP BY drive, source, track_id ORDER BY distance_m, drive, source, track_id""",
    ),
    "people-on-road": Question(
        "pedestrians and cyclists that stand on the road area, for half a second or longer",
        """SELECT drive, source, track_id, any_value(class) AS class, min(frame_id) AS frame_id,
                  min(timestamp_ns) AS timestamp_ns, (max(timestamp_ns) - min(timestamp_ns)) / 1e9 AS seconds,
                  min(distance_m) AS distance_m
           FROM tracks WHERE state = 'confirmed' AND on_road AND class IN ('Pedestrian', 'Cyclist')
           GROUP BY drive, source, track_id HAVING seconds >= 0.5 ORDER BY seconds DESC, drive, source, track_id""",
    ),
    "hard-braking": Question(
        "the vehicle ahead loses more than 3 m/s against us within a second",
        """WITH ahead AS (
             SELECT *, first_value(vz_mps) OVER past AS before_mps, first_value(timestamp_ns) OVER past AS before_ns
             FROM tracks WHERE state = 'confirmed' AND abs(x_m) < 1.5 AND z_m BETWEEN 2 AND 60
                           AND class NOT IN ('Pedestrian', 'Cyclist') AND vz_mps IS NOT NULL
             WINDOW past AS (PARTITION BY drive, source, track_id ORDER BY timestamp_ns
                             RANGE BETWEEN 1000000000 PRECEDING AND CURRENT ROW))
           SELECT drive, source, track_id, any_value(class) AS class,
                  arg_min(frame_id, vz_mps - before_mps) AS frame_id,
                  arg_min(timestamp_ns, vz_mps - before_mps) AS timestamp_ns,
                  min(vz_mps - before_mps) AS change_mps, arg_min(distance_m, vz_mps - before_mps) AS distance_m
           FROM ahead WHERE vz_mps - before_mps < -3.0 AND timestamp_ns - before_ns >= 500000000
           GROUP BY drive, source, track_id ORDER BY change_mps, drive, source, track_id""",
    ),
    "health": Question(
        "what was wrong with the sources: black, frozen, blurred, unreadable",
        """SELECT drive, source, kind, frame_id, timestamp_ns, detail FROM events
           WHERE track_id IS NULL AND active ORDER BY drive, source, timestamp_ns, kind""",
    ),
    "disagreements": Question(
        "where the networks of perception fleet run --second differ for longer than 0.6 s",
        """SELECT drive, source, frame_id, timestamp_ns, detail FROM events
           WHERE kind = 'disagreement' AND active ORDER BY drive, source, timestamp_ns""",
    ),
}
"""Name → question."""
TABLES = ("frames", "tracks", "events", "road")


class Answer(NamedTuple):
    """Columns and rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def done_drives(output: Store) -> dict[str, dict[str, Any]]:
    """Outcomes of all drives that are done, by their number.

    Raises:
        UserError: there are none.
    """
    paths = [path for path in output.sizes() if path.startswith("drives/") and path.endswith(".json")]
    found = {}
    for text in output.read_all(paths).values():
        outcome = json.loads(text)
        if outcome.get("status") == "done":
            found[str(outcome["drive"])] = outcome
    if not found:
        raise UserError(
            f"{output.shown}: no drive is done here", "the output of perception fleet run", "check the path"
        )
    return found


def ask(location: str, question: str) -> Answer:
    """Answer a ready question or a query over `frames`, `tracks`, `events`, `road` and `drives`.

    A query reads these tables and nothing else: no other file, no network.

    Raises:
        UserError: no such question, or an error in the SQL.
    """
    try:
        import duckdb
        import pyarrow as pa
        import pyarrow.dataset as pd
    except ImportError as error:
        raise MissingDependencyError(error.name or "duckdb", "fleet", "perception fleet ask") from None
    ready = QUESTIONS.get(question.strip())
    if ready is None and " " not in question.strip():
        near = difflib.get_close_matches(question.strip(), QUESTIONS, n=1) or list(QUESTIONS)[:1]
        raise UserError(f"unknown question '{question}'", "SQL, or one of " + ", ".join(QUESTIONS), near[0])
    output = Store(location)
    outcomes = done_drives(output)
    with duckdb.connect(":memory:") as connection:
        for table in TABLES:
            paths, filesystem = output.files([f"{table}/{drive}.parquet" for drive in sorted(outcomes)])
            connection.register(table, pd.dataset(paths, filesystem=filesystem, format="parquet"))
        kept = ("drive", "path", "frames", "hours", "corrupt", "attempts")
        rows = [{name: outcome.get(name) for name in kept} for _, outcome in sorted(outcomes.items())]
        connection.register("drives", pa.Table.from_pylist(rows))
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        try:
            found = connection.execute(ready.sql if ready else question)
            columns = [column[0] for column in found.description or ()]
            return Answer(columns, found.fetchall())
        except duckdb.Error as error:
            raise UserError(
                f"SQL: {printable(str(error))[:400]}", "a query over " + ", ".join([*TABLES, "drives"])
            ) from None
