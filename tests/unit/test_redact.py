import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.redact import redact


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
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.text(st.characters(codec="ascii", exclude_characters="/?# \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"), min_size=8))
def test_no_password_survives(password: str) -> None:
    assert password not in redact(f"rtsp://u:{password}@h/x")
