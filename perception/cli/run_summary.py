"""What `perception run` prints: the opening lines and the end summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.redact import printable

if TYPE_CHECKING:
    from perception.runtime.pipeline import Pipeline


def opening(pipeline: Pipeline) -> str:
    """What is about to run: each source, the network, and what `--device auto` chose."""
    lines = []
    for source in pipeline.info.sources:
        size = f"{source.size_hw[1]}x{source.size_hw[0]}" if source.size_hw else "size unknown"
        rate = f" at {source.rate_hz:g} Hz" if source.rate_hz else ""
        lines.append(f"{source.name}: {source.kind}, {size}{rate}{', live' if source.live else ''}")
    spec = pipeline.spec
    size = f"{spec.size_hw[1]}x{spec.size_hw[0]}"
    lines.append(f"network: {spec.name or 'unnamed'} {size} {spec.precision} on {pipeline.info.provider}")
    return "\n".join(lines)


def summarise(pipeline: Pipeline, model_path: Path, wall_s: float, broken: str = "") -> dict[str, Any]:
    """The end summary, as `--json` prints it; `broken` says what ended the run before its time."""
    from perception.sources.video import Video

    stats = pipeline.stats
    frames = sum(stats.frames.values())
    outputs, incomplete = (
        [path for sink in pipeline.sinks if bool(sink.error) == failed for path in sink.sink.outputs()]
        for failed in (False, True)
    )
    return {
        "frames": frames,
        "fps": round(stats.fps, 2),
        "wall_s": round(wall_s, 3),
        "first_result_s": stats.first_result_s and round(stats.first_result_s, 3),
        "latency_ms": stats.latency.summary(),
        "age_ms": stats.age.summary() if stats.age.count else None,
        "network_share": round(stats.network_share, 4),
        "stages_ms": stats.clock.summary(),
        "tracks": sum(stats.tracks.values()),
        "dropped": sum(stats.dropped.values()),
        "dropped_at_shutdown": sum(stats.dropped_at_shutdown.values()),
        "corrupt": sum(source.corrupt for source in pipeline.sources),
        "events": stats.events,
        "provider": pipeline.info.provider,
        "precision": pipeline.spec.precision,
        "model": str(model_path),
        "sources": {
            source.name: {
                "frames": stats.frames.get(source.name, 0),
                "dropped": stats.dropped.get(source.name, 0),
                "dropped_at_shutdown": stats.dropped_at_shutdown.get(source.name, 0),
                "tracks": stats.tracks.get(source.name, 0),
                "corrupt": source.corrupt,
                "reconnects": source.reconnects if isinstance(source, Video) or source.live else 0,
                "notes": source.notes,
                "error": pipeline.errors.get(source.name),
            }
            for source in pipeline.sources
        },
        "sinks": {
            sink.sink.name: {"written": sink.written, "dropped": sink.dropped, "error": sink.error or None}
            for sink in pipeline.sinks
        },
        "outputs": outputs,
        "incomplete": incomplete,
        "error": broken or None,
    }


def as_text(summary: dict[str, Any]) -> str:
    """The end summary for people."""
    latency, stages = summary["latency_ms"], summary["stages_ms"]
    rate = f", {summary['fps']:.1f} a second" if summary["frames"] > 1 else ""  # one frame has none
    lines = [
        f"{summary['frames']} {'frame' if summary['frames'] == 1 else 'frames'}{rate}, first result after "
        f"{summary['first_result_s'] or 0:.2f} s",
        f"latency   p50 {latency['p50_ms']:.1f} ms, p95 {latency['p95_ms']:.1f} ms (all stages of one frame)",
    ]
    if summary["age_ms"]:
        age = summary["age_ms"]
        lines.append(f"age       p50 {age['p50_ms']:.0f} ms, p95 {age['p95_ms']:.0f} ms (capture to result)")
    lines.append(
        f"network   {summary['network_share']:.0%} of that time, {summary['provider']}, "
        f"{summary['model']} ({summary['precision']})"
    )
    lines.append("stages    " + ", ".join(f"{n} {s['p50_ms']:.2f}" for n, s in stages.items()) + " (median ms)")
    lines.append(f"tracks    {summary['tracks']}")
    lost = f"{summary['dropped']} frames dropped, {summary['corrupt']} unreadable"
    behind = f", {summary['dropped_at_shutdown']} dropped at shutdown" if summary["dropped_at_shutdown"] else ""
    lines.append(f"lost      {lost}{behind}")
    if summary["error"]:
        lines.append(f"FAILED    {summary['error']}")
    for name, source in summary["sources"].items():
        lines += [f"note      {name}: {note}" for note in source["notes"]]
        if source["error"]:
            lines.append(f"FAILED    source {name}: {source['error']}")
    for name, sink in summary["sinks"].items():
        if sink["error"]:
            lines.append(f"FAILED    {name}: {sink['error']}")
        elif sink["dropped"]:
            lines.append(f"note      {name} left out {sink['dropped']} frames")
    lines += [f"written   {path}" for path in summary["outputs"]]
    lines += [f"partly    {path}" for path in summary["incomplete"]]
    return "\n".join(map(printable, lines))
