"""Fetching from a server on this machine that drops the line, ignores ranges, lies about sizes or serves rubbish."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import stat
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from datasets import cli as data_command
from datasets.fetching import fetch as fetching
from datasets.fetching import unpack as unpacking
from datasets.fetching.download import Patience, download
from datasets.fetching.fetch import Archive, Fetched, RemoteSet, fetch
from datasets.fetching.unpack import BadArchiveError, unpack
from perception.cli.main import main as perception
from perception.errors import UserError
from perception.progress import Progress

HURRIED = Patience(retries=3, wait_s=0.0, timeout_s=5.0)


class Server:
    """Files over HTTP/1.1 with ranges, and a list of faults to commit, one a request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.requests: list[tuple[str, str]] = []  # path, Range header
        self.etag = '"one"'
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/avg-kitti"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        self.requests.append((request.path, asked))
        fault = self.faults.pop(0) if self.faults else ""
        content = self.files.get(request.path.rsplit("/", 1)[1])
        request.close_connection = True
        if fault.isdecimal() or content is None:
            request.send_error(int(fault or 404))
            return
        first = int(match[1]) if (match := re.match(r"bytes=(\d+)-$", asked)) else 0
        if "no ranges" in fault or (request.headers.get("If-Range") or self.etag) != self.etag:
            first = 0
        if first >= len(content) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = content[first:]
        request.send_response(206 if first else 200)
        if first:
            start = first - 1 if fault == "wrong range" else first
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if fault != "no length":
            request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", self.etag)
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if "drop" in fault else body)


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    thread = threading.Thread(target=served.http.serve_forever, args=(0.02,))
    thread.start()
    yield served
    served.http.shutdown()
    thread.join()
    served.http.server_close()


def zip_of(files: dict[str, bytes], stored: bool = True) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(200_000)
IMAGES = zip_of({"training/image_2/000000.png": NOISE, "testing/image_2/000000.png": b"test"})
LABELS = zip_of({"training/label_2/000000.txt": b"", "training/label_2/000001.txt": b"Car"})
SETS = {
    "tiny": RemoteSet(
        "object",
        (
            Archive("labels.zip", ("training/label_2",)),
            Archive("images.zip", ("training/image_2", "testing/image_2"), size=len(IMAGES)),
        ),
    )
}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file that a user sees below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    relative = {path.relative_to(folder): path.read_bytes() for path in files}
    return {
        str(path): content for path, content in relative.items() if not any(p.startswith(".") for p in path.parts)
    }


WHOLE = {
    "object/testing/image_2/000000.png": b"test",
    "object/training/image_2/000000.png": NOISE,
    "object/training/label_2/000000.txt": b"",
    "object/training/label_2/000001.txt": b"Car",
}


@pytest.fixture
def tiny(server: Server) -> Server:
    server.files = {"images.zip": IMAGES, "labels.zip": LABELS}
    return server


def run(server: Server, root: Path, **options) -> list[Fetched]:
    return fetch("tiny", root, base_url=server.url, sets=SETS, patience=HURRIED, **options)


# ---------------------------------------------------------------- a good server


def test_everything_lands_where_the_readers_look(tiny, tmp_path):
    done = run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE
    assert done == [Fetched("labels.zip", "fetched", 2), Fetched("images.zip", "fetched", 2)]


def test_running_again_asks_the_server_for_nothing(tiny, tmp_path):
    run(tiny, tmp_path)
    tiny.requests.clear()
    assert [one.state for one in run(tiny, tmp_path)] == ["present", "present"]
    assert tiny.requests == []


def test_archives_are_kept_on_request_and_used_again(tiny, tmp_path):
    run(tiny, tmp_path, keep_archives=True)
    assert (tmp_path / "archives" / "images.zip").read_bytes() == IMAGES
    shutil.rmtree(tmp_path / "object")
    tiny.requests.clear()
    run(tiny, tmp_path)
    assert tiny.requests == [] and tree(tmp_path) == WHOLE


def test_a_users_own_folder_is_never_touched(tiny, tmp_path, capsys):
    mine = tmp_path / "object" / "training" / "label_2" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    other = tmp_path / "object" / "testing" / "image_2" / "mine.png"
    other.parent.mkdir(parents=True)
    other.write_text("mine too")
    assert [one.state for one in run(tiny, tmp_path)] == ["present", "fetched"]
    assert mine.read_text() == "mine" and other.read_text() == "mine too"
    assert (tmp_path / "object" / "training" / "image_2" / "000000.png").exists()
    assert capsys.readouterr().err.count("stays as it is") == 2


# ---------------------------------------------------------------- a bad line


def test_a_line_that_drops_half_way_is_taken_up_where_it_ended(tiny, tmp_path):
    tiny.faults = ["", "drop", "drop", "drop"]  # the first is for the labels
    run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE
    ranges = [asked for path, asked in tiny.requests if path.endswith("images.zip")]
    starts = [int(asked[len("bytes=") : -1]) for asked in ranges[1:]]
    size = len(IMAGES)
    assert ranges[0] == "" and starts == [size // 2, size // 2 + (size - size // 2) // 2, starts[2]]
    assert starts[2] > starts[1]


def test_broken_off_and_run_again_goes_on_from_there(tiny, tmp_path):
    tiny.faults = ["", "drop", *["503"] * 10]
    with pytest.raises(UserError, match=r"503.*kB so far are kept"):
        run(tiny, tmp_path)
    assert (tmp_path / "archives" / "images.zip.part").stat().st_size == len(IMAGES) // 2
    tiny.faults, tiny.requests = [], []
    run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE
    assert tiny.requests == [("/avg-kitti/images.zip", f"bytes={len(IMAGES) // 2}-")]


def test_a_server_that_ignores_ranges_is_read_from_the_start(tiny, tmp_path):
    tiny.faults = ["", "drop", "no ranges"]
    run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE


def test_a_server_that_ignores_ranges_and_always_drops_ends_in_a_sentence(tiny, tmp_path):
    tiny.faults = ["", *["drop, no ranges"] * 20]
    with pytest.raises(UserError, match="ended early"):
        run(tiny, tmp_path)
    assert len(tiny.requests) == 1 + 1 + HURRIED.retries + 1  # labels, the first try, and those that brought no more


def test_a_file_that_changed_on_the_server_is_not_stitched_to_the_old_one(server, tmp_path):
    server.files = {"a.bin": b"a" * 1000}
    server.faults = ["drop", *["503"] * 10]
    with pytest.raises(UserError):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HURRIED)
    server.files, server.etag, server.faults = {"a.bin": b"b" * 1000}, '"two"', []
    download(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HURRIED)
    assert (tmp_path / "a.bin").read_bytes() == b"b" * 1000


def test_an_answer_with_another_range_than_asked_for_is_thrown_away(server, tmp_path):
    server.files = {"a.bin": bytes(range(256)) * 4}
    server.faults = ["drop", "wrong range"]
    download(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HURRIED)
    assert (tmp_path / "a.bin").read_bytes() == bytes(range(256)) * 4


@pytest.mark.parametrize("extra", [0, 5])
def test_a_part_that_is_whole_or_too_long_already(server, tmp_path, extra):
    server.files = {"a.bin": b"a" * 100}
    (tmp_path / "a.bin.part").write_bytes(b"a" * (100 + extra))
    download(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HURRIED)
    assert (tmp_path / "a.bin").read_bytes() == b"a" * 100
    assert not (tmp_path / "a.bin.part").exists()


def test_no_server_at_all_is_told_and_ends_in_a_sentence(tmp_path, capsys):
    with pytest.raises(UserError, match="run the same command again"):
        download("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", patience=Patience(retries=1, wait_s=0, timeout_s=2))
    assert capsys.readouterr().err.count("; again in 0 s") == 1  # who waits knows what for


def test_a_missing_file_is_not_tried_again(server, tmp_path):
    with pytest.raises(UserError, match="HTTP 404"):
        download(f"{server.url}/nothing.zip", tmp_path / "nothing.zip", patience=HURRIED)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.zip", "a.zip"])
def test_only_web_addresses(url, tmp_path):
    with pytest.raises(UserError, match="not a web address"):
        download(url, tmp_path / "a.zip")


# ---------------------------------------------------------------- wrong sizes and checksums


def test_a_server_with_another_size_than_known_is_refused_before_a_byte_is_kept(tiny, tmp_path):
    tiny.files["images.zip"] = IMAGES + b"more"
    with pytest.raises(UserError, match=f"offers {len(IMAGES) + 4} bytes"):
        run(tiny, tmp_path)
    assert not (tmp_path / "object" / "training" / "image_2").exists()
    assert not (tmp_path / "archives" / "images.zip").exists()


def test_a_server_that_does_not_say_how_long_the_file_is(server, tmp_path):
    server.files = {"a.bin": b"a" * 10}
    server.faults = ["no length"] * 5
    with pytest.raises(UserError, match="does not say how long"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", patience=HURRIED)
    download(f"{server.url}/a.bin", tmp_path / "a.bin", size=10, patience=HURRIED)  # known otherwise
    assert (tmp_path / "a.bin").read_bytes() == b"a" * 10


def test_an_answer_longer_than_known_is_cut_off(server, tmp_path):
    server.files = {"a.bin": b"a" * 5000}
    server.faults = ["no length"]
    download(f"{server.url}/a.bin", tmp_path / "a.bin", size=1000, patience=HURRIED)
    assert (tmp_path / "a.bin").stat().st_size == 1000


def test_a_wrong_checksum_deletes_the_file(server, tmp_path):
    server.files = {"a.bin": b"good"}
    good = hashlib.sha256(b"good").hexdigest()
    download(f"{server.url}/a.bin", tmp_path / "a.bin", sha256=good, patience=HURRIED)
    assert (tmp_path / "a.bin").read_bytes() == b"good"
    server.files = {"b.bin": b"evil"}
    with pytest.raises(UserError, match="SHA-256"):
        download(f"{server.url}/b.bin", tmp_path / "b.bin", sha256=good, patience=HURRIED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]


def test_a_full_disk_is_noticed_before_the_download(tiny, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(UserError, match=r"1\.0 kB free"):
        run(tiny, tmp_path)
    assert not list((tmp_path / "archives").glob("*.zip*"))


# ---------------------------------------------------------------- bad archives


def damaged(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "content",
    [damaged(IMAGES), b"<html>please log in</html>".ljust(len(IMAGES)), IMAGES[:-100].ljust(len(IMAGES), b"\0")],
    ids=["one byte flipped", "a web page", "no directory at the end"],
)
def test_a_damaged_zip_leaves_nothing_behind_and_can_be_fetched_again(tiny, tmp_path, content):
    tiny.files["images.zip"] = content
    with pytest.raises(UserError, match="damaged"):
        run(tiny, tmp_path)
    assert tree(tmp_path) == {name: data for name, data in WHOLE.items() if "label_2" in name}
    tiny.files["images.zip"] = IMAGES
    run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE


def test_a_zip_with_something_else_in_it_says_what(tiny, tmp_path):
    tiny.files["labels.zip"] = zip_of({"holiday/beach.png": b"sea"})
    with pytest.raises(UserError, match=r"holds holiday"):
        run(tiny, tmp_path)
    assert tree(tmp_path) == {}


def test_unpacking_broken_off_between_two_folders_goes_on(tiny, tmp_path, monkeypatch):
    real, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(str(target))
        if str(target).endswith("testing/image_2"):
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path)
    monkeypatch.undo()
    tiny.requests.clear()
    run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE and tiny.requests == []


def test_interrupted_while_unpacking_shows_no_half_folder(tiny, tmp_path, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", lambda self, done, *_: stop() if self.label == "unpacking" else None)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path)
    assert not (tmp_path / "object" / "training").exists()
    monkeypatch.undo()
    run(tiny, tmp_path)
    assert tree(tmp_path) == WHOLE


def write_zip(path: Path, name: str, content: bytes = b"x", mode: int = 0) -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("training/fine.txt", b"fine")
        archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil.txt", "training/../../evil.txt", "..\\evil.txt", "C:/evil.txt"]
)
def test_paths_that_leave_the_folder_are_refused(tmp_path, name):
    archive = write_zip(tmp_path / "a.zip", name)
    with pytest.raises(BadArchiveError, match="leads outside"):
        unpack(archive, tmp_path / "inside" / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_links_are_refused(tmp_path):
    archive = write_zip(tmp_path / "a.zip", "training/link", b"/etc/passwd", stat.S_IFLNK | 0o777)
    with pytest.raises(BadArchiveError, match="leads outside"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_path_twice_is_refused(tmp_path):
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(write_zip(tmp_path / "a.zip", "training/fine.txt"), tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.tmp").exists()


def test_a_file_where_a_folder_should_be_is_refused(tmp_path):
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(write_zip(tmp_path / "a.zip", "training/fine.txt/deeper.txt"), tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    (tmp_path / "a.zip").write_bytes(zip_of({"training/zeros": bytes(8 << 20)}, stored=False))
    with pytest.raises(BadArchiveError, match=r"unpacks to 8\.4 MB"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip"]


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_MEMBERS", 3)
    (tmp_path / "a.zip").write_bytes(zip_of({f"{i}": b"" for i in range(4)}))
    with pytest.raises(BadArchiveError, match="4 entries"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_size_that_is_a_lie_is_refused(tmp_path):
    content = bytearray(zip_of({"training/a.txt": b"y" * 1000}))
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (10).to_bytes(4, "little")  # the size that the directory promises
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BadArchiveError, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_room_to_unpack_keeps_the_archive(tiny, tmp_path, monkeypatch):
    run(tiny, tmp_path, keep_archives=True)
    shutil.rmtree(tmp_path / "object")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2))
    with pytest.raises(UserError, match="2 B free"):
        run(tiny, tmp_path)
    assert (tmp_path / "archives" / "images.zip").exists()


def test_a_leading_folder_is_stripped_where_it_is_there(tmp_path):
    for number, prefix in enumerate(("data_road/", "")):
        archive = tmp_path / f"{number}.zip"
        archive.write_bytes(zip_of({f"{prefix}training/calib/a.txt": b"1"}))
        assert unpack(archive, tmp_path / f"out{number}", strip="data_road") == 1
        assert (tmp_path / f"out{number}" / "training" / "calib" / "a.txt").exists()


# ---------------------------------------------------------------- the catalogue, the lock, the command


def test_an_unknown_set_names_those_that_are_known(tmp_path):
    with pytest.raises(UserError, match="kitti-object"):
        fetch("kitti", tmp_path)


def test_two_fetches_into_one_folder_do_not_meet(tiny, tmp_path):
    (tmp_path / "object").mkdir()
    with fetching._alone(tmp_path / "object"), pytest.raises(UserError, match="another fetch"):
        run(tiny, tmp_path)


def test_the_catalogue_fills_what_the_readers_read():
    first = {name: {archive.units[0] for archive in chosen.archives} for name, chosen in fetching.SETS.items()}
    assert first == {
        "kitti-object": {"training/image_2", "training/label_2", "training/calib", "devkit"},
        "kitti-road": {"training/image_2"},
        "kitti-tracking": {"training/image_02", "training/label_02", "training/calib"},
    }
    for chosen in fetching.SETS.values():
        assert len({unit for archive in chosen.archives for unit in archive.units}) == sum(
            len(archive.units) for archive in chosen.archives
        )


def road_zip() -> bytes:
    import cv2

    image = cv2.imencode(".png", np.zeros((8, 16, 3), np.uint8))[1].tobytes()
    truth = np.zeros((8, 16, 3), np.uint8)
    truth[..., 2] = 255
    truth[4:, :, 0] = 255
    return zip_of(
        {
            "data_road/training/image_2/um_000000.png": image,
            "data_road/training/gt_image_2/um_road_000000.png": cv2.imencode(".png", truth)[1].tobytes(),
            "data_road/training/calib/um_000000.txt": b"P2: " + b"1 " * 12,
        }
    )


def test_the_command_fetches_what_the_reader_then_reads(server, tmp_path, capsys):
    from datasets.kitti_road import KittiRoad

    server.files = {"data_road.zip": road_zip()}
    code = perception(["data", "fetch", "kitti-road", "--root", str(tmp_path), "--base-url", server.url, "--json"])
    output = capsys.readouterr()
    assert code == 0
    assert json.loads(output.out)["archives"] == [{"archive": "data_road.zip", "state": "fetched", "files": 3}]
    assert "CC BY-NC-SA" in output.err
    sample = KittiRoad(tmp_path / "road")[0]
    assert sample.road is not None and sample.road.sum() == 4 * 16


def test_the_command_ends_with_2_and_a_sentence_when_the_server_has_nothing(server, tmp_path, capsys):
    code = perception(["data", "fetch", "kitti-road", "--root", str(tmp_path), "--base-url", server.url])
    assert code == 2
    assert "HTTP 404" in capsys.readouterr().err


def test_the_object_kit_tells_the_drives(server, tmp_path):
    from datasets.splits import read_drives

    kit = zip_of(
        {
            "mapping/train_rand.txt": b"2,1",
            "mapping/train_mapping.txt": b"2011_09_26 2011_09_26_drive_0001_sync 0000000005\n"
            b"2011_09_28 2011_09_28_drive_0106_sync 0000000048\n",
        }
    )
    server.files = {"devkit_object.zip": kit}
    sets = {
        "kit": RemoteSet("object", (Archive("devkit_object.zip", ("devkit",), strip="devkit_object", into="devkit"),))
    }
    fetch("kit", tmp_path, base_url=server.url, sets=sets, patience=HURRIED)
    assert read_drives(tmp_path / "object") == {"000000": "2011_09_28_drive_0106", "000001": "2011_09_26_drive_0001"}


def test_data_without_a_subcommand_explains_itself(capsys):
    assert data_command.main([]) == 0
    assert "fetch" in capsys.readouterr().out
    with pytest.raises(UserError, match="fetch"):
        data_command.main(["fech"])
