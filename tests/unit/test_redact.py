import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perception.errors import UserError
from perception.redact import printable, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@cam.local:554/a", "rtsp://***@cam.local:554/a"),
        ("rtsp://me:p@ss@cam/a", "rtsp://***@cam/a"),
        ("http://cam/video?token=abc&size=2", "http://cam/video?token=***&size=2"),
        ("http://cam/v?user=me&pwd=x", "http://cam/v?user=***&pwd=***"),
        ("cannot open 'rtsp://a:b@c/d': no", "cannot open 'rtsp://***@c/d': no"),
        ("drive.mp4", "drive.mp4"),
        ("http://cam/a@b.mp4", "http://cam/a@b.mp4"),
        ("rtsp://me:pa/ss#w?x@host/path", "rtsp://***@host/path"),
        ("rtsp://me:my pass word@host/x", "rtsp://***@host/x"),
        ("rtsp://me:12/34@host/x", "rtsp://***@host/x"),
        ("rtsp://me:12345 67@host/x", "rtsp://***@host/x"),
        ("http://cam:8080\nme@x.org", "http://cam:8080\nme@x.org"),
        ("rtsp://me:000a0:/ @host/x", "rtsp://***@host/x"),
        ("rtsp://a:b@c and rtsp://d:e@f", "rtsp://***@c and rtsp://***@f"),
        ("http://cam:8080/video, write to me@x.org", "http://cam:8080/video, write to me@x.org"),
        ("http://c/x?pass=1&psw=2&p=3&size=5", "http://c/x?pass=***&psw=***&p=***&size=5"),
        ("srt://h:1?passphrase=abc&mode=caller", "srt://h:1?passphrase=***&mode=caller"),
        ("http://h/v?api_key=1&monkey=2&step=3", "http://h/v?api_key=***&monkey=2&step=3"),
        ("http://h/v#access_token=1", "http://h/v#access_token=***"),
        ("rtsp://cam/user=admin_password=x1_channel=1.sdp", "rtsp://cam/user=***_password=***_channel=1.sdp"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text(st.characters(codec="ascii", exclude_characters="\n\r"), min_size=8))
def test_no_password_survives(password: str) -> None:
    assume(not re.match(r"\d{1,5}[/?#\s'\"]\S*\s", password))  # reads like a port, and text behind the URL
    assume(not re.search(r"\b[A-Za-z][A-Za-z0-9+.-]+:/", password))  # reads like another URL
    assert password not in redact(f"rtsp://u:{password}@h/x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("Straße 東京.mp4", "Straße 東京.mp4"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\x9b2J", "\\x9b2J"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_errors_hold_neither_passwords_nor_escape_codes() -> None:
    error = UserError("rtsp://me:pw@cam/\x1b[2J: no answer", "a stream", "perception run rtsp://me:pw@cam/")
    assert str(error) == (
        "rtsp://***@cam/\\x1b[2J: no answer\n  expected: a stream\n  try: perception run rtsp://***@cam/"
    )
