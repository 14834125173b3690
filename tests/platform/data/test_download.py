import hashlib
import resource
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onestep.platform.data.download import fetch
from onestep.platform.data.errors import DataAltered, DataNotFound
from onestep.platform.data.published import PublishedFile, provide

BODY = bytes(range(256)) * 16_384  # 4 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unmeasured":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        whole = self.path == "/whole"
        self.wfile.write(BODY if whole else BODY[: len(BODY) // 2])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_whole_file_is_moved_into_place(address: str, tmp_path: Path) -> None:
    path = tmp_path / "mnist" / "file.gz"
    fetch(f"{address}/whole", path, sha256=SHA256)
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("page", ["truncated", "unmeasured"])
def test_a_truncated_body_leaves_nothing_behind(address: str, tmp_path: Path, page: str) -> None:
    with pytest.raises(DataAltered, match=f"gave {len(BODY) // 2} bytes.*nothing was kept"):
        fetch(f"{address}/{page}", tmp_path / "file.gz", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused_and_the_present_one_kept(address: str, tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(b"present")
    with pytest.raises(DataAltered, match="but the published file has 0000"):
        fetch(f"{address}/whole", path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"present"


def test_a_missing_page_is_one_sentence(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"cannot download .*/missing \(.*404.*ONESTEP_DATA"):
        fetch(f"{address}/missing", tmp_path / "file.gz", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_host_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"cannot download http://127\.0\.0\.1:1/"):
        fetch("http://127.0.0.1:1/file.gz", tmp_path / "file.gz", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(address: str, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to write past this size, as it does past the end of a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fetch(f"{address}/whole", tmp_path / "file.gz", sha256=SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_only_a_missing_file_is_downloaded(address: str, tmp_path: Path) -> None:
    file = PublishedFile(name="file.gz", sha256=SHA256, address=f"{address}/whole")
    path = provide(file, tmp_path, ("first", "second"), download=True)
    assert path == tmp_path / "first" / "file.gz"
    assert path.read_bytes() == BODY
    unreachable = PublishedFile(name="file.gz", sha256=SHA256, address="http://127.0.0.1:1/")
    assert provide(unreachable, tmp_path, ("other", "first"), download=True) == path
