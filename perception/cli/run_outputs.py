"""The sinks that the options of `perception run` ask for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import UserError

if TYPE_CHECKING:
    from perception.cli.run import RunOptions
    from perception.sinks import Sink
    from perception.sinks.events import EventsSink
    from perception.sources import Source


def make_sinks(
    options: RunOptions, out: Path, settings: dict[str, dict[str, Any]], sources: Sequence[Source]
) -> list[Sink]:
    """Create what the options ask for; heavy sinks are imported only then.

    Args:
        settings: fields of sinks that --set names, by sink.
        sources: opened, for what depends on their names and sizes.
    """
    from perception.sinks import create_sink

    shorthands = [name for name in ("video", "images", "kitti", "mot", "rerun", "mcap") if getattr(options, name)]
    names = dict.fromkeys(["jsonl", *shorthands, *options.sink])  # each once, in this order
    if unused := [name for name in settings if name not in names]:
        raise UserError(
            f"--set {unused[0]}.FIELD for a sink that does not run",
            f"one of {', '.join(names)}",
            f"--sink {unused[0]}",
        )
    sinks = [create_sink(name, out, **settings.get(name, {})) for name in names]
    events = _events(options, options.events, out, sources) if options.events else None
    if events is not None:
        sinks.append(events)
    if options.metrics:
        from perception.sinks.metrics import MetricsSink

        metrics = MetricsSink(options.metrics, options.token)
        print(f"metrics   {metrics.listen().url_with_token('metrics')}", file=sys.stderr)
        sinks.append(metrics)
    if options.foxglove:
        from perception.sinks.foxglove import FoxgloveSink

        viewer = FoxgloveSink(options.foxglove)
        print(f"foxglove  {viewer.listen()}", file=sys.stderr)
        sinks.append(viewer)
    if options.serve:
        from perception.sinks.web import WebSink

        page = WebSink(options.serve, options.token)
        print(f"live page {page.listen().url_with_token()}", file=sys.stderr)  # a taken port ends the run here
        sinks.append(page)
        if events is not None:
            events.listeners.append(page.scene_event)
    return sinks


def _events(options: RunOptions, path: Path, out: Path, sources: Sequence[Source]) -> EventsSink:
    """The sink of events, its file checked against the sources."""
    from perception.sinks.events import EventsSink
    from perception.sinks.events.config import check_events, read_events
    from perception.sinks.events.delivery import Delivery, Mqtt, Webhook, read_secret

    config = read_events(path)
    facts = {source.name: (source.size_hw, source.calibration is not None) for source in sources}
    for note in check_events(config, facts, path):
        print(f"warning: {path}: {note}", file=sys.stderr)
    deliveries: list[Delivery] = []
    if options.webhook:
        deliveries.append(Webhook(options.webhook, read_secret(options.webhook_secret)))
    if options.mqtt:
        deliveries.append(Mqtt(options.mqtt))
    return EventsSink(out, config, deliveries)
