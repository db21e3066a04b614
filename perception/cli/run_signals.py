"""Signals of `perception run`: an orderly end, and SIGHUP, which reads the list of sources again."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import UserError
from perception.files import read_toml

if TYPE_CHECKING:
    from perception.cli.run import RunOptions
    from perception.runtime.pipeline import Pipeline
    from perception.runtime.source_control import SourceControl

log = logging.getLogger("perception.run")


@contextmanager
def signals_as_before() -> Iterator[None]:
    """Whatever the run does with SIGINT and SIGTERM, afterwards they are handled as they were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def let_signals_kill() -> None:
    """SIGINT and SIGTERM end the process at once, also while it waits inside a library."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop_on_signals(pipeline: Pipeline) -> threading.Event:
    """SIGINT and SIGTERM end the run in order; a second one ends it at once. Set once one has come."""
    interrupted = threading.Event()

    def stop() -> None:
        interrupted.set()
        pipeline.stop()

    def handle(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        # not in the handler itself: it may interrupt a thread that holds a lock which `stop` needs
        threading.Thread(target=stop, daemon=True).start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)
    return interrupted


def leave(code: int) -> None:
    """End the process now that all is written. A thread may still be inside the network or waiting for a camera:
    Python's own way out would tear the libraries down under it, which aborts, or takes seconds on a busy machine."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def let_change(pipeline: Pipeline, options: RunOptions) -> SourceControl:
    """Let the page's API add and remove sources."""
    from perception.cameras.files import read_camera
    from perception.runtime.source_control import SourceControl
    from perception.sinks.web import WebSink

    camera = read_camera(options.camera) if options.camera else None
    control = SourceControl(pipeline, options.source, camera, options.sources)
    for runner in pipeline.sinks:
        if isinstance(runner.sink, WebSink):
            runner.sink.control = control
    return control


def reload_on_hangup(path: Path | None, control: SourceControl) -> None:
    """SIGHUP reads the list of sources in the TOML file again, where there is one."""
    if path is None or not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        return
    if "sources" not in read_toml(path):
        return

    def reload() -> None:
        try:
            wanted = read_toml(path).get("sources")
            if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
                raise UserError(f"{path}: sources is {wanted!r}", 'a list: sources = ["front=rtsp://HOST/PATH"]')
            added, removed = control.reload(wanted)
            log.info("%s: %d sources added, %d removed", path, len(added), len(removed))
        except UserError as error:
            log.warning("%s; the sources stay as they are", error.found)

    # opening a source takes time, and the handler may interrupt a thread that holds a lock
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=reload, name="reload", daemon=True).start())
