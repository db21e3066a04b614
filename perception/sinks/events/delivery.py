"""Events to others: a signed webhook and MQTT. Each has a bounded queue; beyond it events are dropped and counted."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import queue
import secrets
import ssl
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from perception.clocks import Backoff
from perception.errors import MissingDependencyError, UserError
from perception.files import read_text
from perception.redact import printable, redact

log = logging.getLogger("perception.events")

MOST_WAITING = 1000
"""Events in a queue."""
MOST_REASONS = 10
"""Different complaints between two successes."""
TIMEOUT_S = 5.0
SHORTEST_SECRET = 16
_AGAIN = (408, 425, 429)
"""Answers after which the same event is sent again; so are those from 500."""


class Delivery(ABC):
    """Somewhere that events go. `offer` never waits."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        """The address without anything secret."""
        self.delivered = self.dropped = self.refused = 0
        self._said: set[str] = set()

    @abstractmethod
    def offer(self, record: dict[str, Any]) -> None:
        """Queue one event."""

    @abstractmethod
    def close(self, wait_s: float) -> int:
        """Send what waits, at most so long; returns how many events did not arrive."""

    def complain(self, text: str) -> None:
        """Log a reason, each once until it works again."""
        if text not in self._said and len(self._said) < MOST_REASONS:
            self._said.add(text)
            log.warning("%s: %s", self.shown, printable(redact(text)))

    def works(self) -> None:
        """It works again: reasons are worth a line again."""
        self._said.clear()


class Webhook(Delivery):
    """POST of one JSON object an event.

    `X-Perception-Signature` is `sha256=` and the HMAC of `TIMESTAMP.BODY` in hexadecimal, with the timestamp of
    `X-Perception-Timestamp`. `X-Perception-Delivery` stays the same when an event is sent again. Redirects count as
    refusals, so an event and its signature never go to another host.
    """

    def __init__(self, url: str, secret: bytes, retry_s: float = 0.5, waiting: int = MOST_WAITING) -> None:
        """
        Args:
            url: http or https.
            secret: of the signature.
            retry_s: wait before the second attempt; it doubles.
            waiting: events in the queue.

        Raises:
            UserError: not such a URL.
        """
        super().__init__(redact(url))
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--webhook {redact(url)}", "an http or https address", "--webhook https://HOST/PATH")
        try:
            self._port = parts.port
        except ValueError:
            raise UserError(f"--webhook {redact(url)}: its port", "a number up to 65535") from None
        self._parts, self._secret = parts, secret
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._backoff = Backoff(retry_s)
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(waiting)
        self._stopping = threading.Event()
        self._in_hand = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def offer(self, record: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            self.complain(f"{self._queue.maxsize} events wait; further ones are dropped and counted")

    def close(self, wait_s: float) -> int:
        until_s = time.monotonic() + wait_s
        while (self._queue.unfinished_tasks) and time.monotonic() < until_s and self._thread.is_alive():
            time.sleep(0.02)
        self._stopping.set()
        return self._queue.unfinished_tasks + self.dropped + self.refused

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                record = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            self._deliver(json.dumps(record, separators=(",", ":")).encode(), secrets.token_hex(8))
            if not self._stopping.is_set():
                self._queue.task_done()

    def _deliver(self, body: bytes, number: str) -> None:
        self._backoff.reset()
        while not self._stopping.is_set():
            try:
                status = self._post(body, number)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if 200 <= status < 300:
                    self.delivered += 1
                    self.works()
                    return
                if status < 500 and status not in _AGAIN:
                    self.refused += 1
                    self.complain(f"answered {status}; the event is not sent again")
                    return
                reason = f"answered {status}"
            self.complain(f"{reason}; trying again")
            self._backoff.wait(self._stopping)

    def _post(self, body: bytes, number: str) -> int:
        stamp = str(int(time.time()))
        signature = hmac.new(self._secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-Perception-Timestamp": stamp,
            "X-Perception-Signature": f"sha256={signature}",
            "X-Perception-Delivery": number,
        }
        if self._parts.username is not None:
            import base64

            pair = f"{unquote(self._parts.username)}:{unquote(self._parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        host = self._parts.hostname or ""
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, self._port, timeout=TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            response.read(1024)  # what it says does not matter
            return response.status
        finally:
            connection.close()


class Mqtt(Delivery):
    """One message an event, on PREFIX/SOURCE/NAME with quality of service 1, over connections that break."""

    def __init__(self, url: str) -> None:
        """`mqtt://user:password@host:1883/prefix`, or `mqtts://` with TLS.

        Raises:
            UserError: not such a URL.
            MissingDependencyError: paho-mqtt is not installed.
        """
        super().__init__(redact(url))
        try:
            import paho.mqtt.client as paho
        except ImportError:
            raise MissingDependencyError("paho-mqtt", "mqtt", "--mqtt") from None
        parts = urlsplit(url)
        try:
            port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        except ValueError:
            port = 0
        self._prefix = parts.path.strip("/") or "perception"
        wrong = parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or not port
        if wrong or any(sign in self._prefix for sign in "#+\0"):
            raise UserError(
                f"--mqtt {redact(url)}", "mqtt://HOST:PORT/PREFIX or mqtts://HOST", "--mqtt mqtt://127.0.0.1"
            )
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        if parts.username is not None:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.max_queued_messages_set(MOST_WAITING)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_publish = self._published
        self._client.on_connect = self._connected
        self._client.on_connect_fail = lambda client, data: self.complain("no connection; trying again")
        self._client.on_disconnect = self._disconnected
        self._closing = False
        self._waiting: set[int] = set()
        self._lock = threading.Lock()
        self._client.connect_async(parts.hostname or "", port, keepalive=30)
        self._client.loop_start()

    def offer(self, record: dict[str, Any]) -> None:
        topic = "/".join([self._prefix, *(_level(str(record.get(key, "-"))) for key in ("source", "name"))])
        with self._lock:  # the answer may come before the number is noted
            sent = self._client.publish(topic, json.dumps(record, separators=(",", ":")), qos=1)
            if sent.rc == 15:  # MQTT_ERR_QUEUE_SIZE
                self.dropped += 1
                full = True
            else:
                full = False
                self._waiting.add(sent.mid)
        if full:
            self.complain(f"{MOST_WAITING} events wait; further ones are dropped and counted")

    def close(self, wait_s: float) -> int:
        until_s = time.monotonic() + wait_s
        while self._waiting and time.monotonic() < until_s:
            time.sleep(0.02)
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()
        return len(self._waiting) + self.dropped

    def _published(self, client: Any, data: Any, number: int, *rest: Any) -> None:
        with self._lock:
            self._waiting.discard(number)
            self.delivered += 1

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.complain(f"refused: {reason}; trying again")
        else:
            self.works()

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._closing:
            self.complain(f"disconnected: {reason}; trying again")


def _level(name: str) -> str:
    """A name as one level of a topic."""
    return "".join("-" if sign in "/#+\0" else sign for sign in name)


def read_secret(path: Path | None) -> bytes:
    """The secret of a webhook, from a file, without white space around it.

    Raises:
        UserError: none, or one that can be guessed.
    """
    make = "openssl rand -hex 32 > webhook.key, then --webhook-secret webhook.key"
    if path is None:
        raise UserError("--webhook without a secret", "a file with the secret of the signature", make)
    secret = read_text(path, "a file with the secret of the signature", make, 10_000).strip()
    if len(secret) < SHORTEST_SECRET:
        raise UserError(f"{path}: a secret of {len(secret)} characters", f"at least {SHORTEST_SECRET}", make)
    return secret.encode()
