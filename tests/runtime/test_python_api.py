"""The ten lines of the README."""

import subprocess
import sys
from pathlib import Path


def test_ten_lines(video_file: Path, tiny_model: Path) -> None:
    import perception

    seen = 0
    for result in perception.run(video_file, model=tiny_model):
        for track in result.tracks:
            assert track.box_xyxy.shape == (4,)
            seen = max(seen, track.track_id)
        assert result.road is not None
        assert result.road.at_frame_size().shape == result.frame.size_hw
    assert seen == 2


def test_names_are_found_lazily() -> None:
    code = "import sys, perception; assert 'cv2' not in sys.modules; perception.Pipeline; assert 'cv2' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_everything_that_is_offered_exists() -> None:
    import perception

    for name in perception._PLACES:
        assert getattr(perception, name).__name__ == name
