from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recmodels.data.download import DownloadError, fetch
from recmodels.data.tables import read_table


def archive() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        file.writestr(zipfile.ZipInfo("ml-100k/u.data"), "1\t2\t3\t4\n")
    return memory.getvalue()


ARCHIVE = archive()
CHECKSUM = "md5:" + hashlib.md5(ARCHIVE).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the archive whole at /whole.zip and breaks off half way at /cut.zip."""

    requests_served = 0

    def do_GET(self) -> None:
        type(self).requests_served += 1
        if self.path not in ("/whole.zip", "/cut.zip"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(ARCHIVE)))
        self.end_headers()
        self.wfile.write(ARCHIVE if self.path == "/whole.zip" else ARCHIVE[: len(ARCHIVE) // 2])
        self.close_connection = True

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.requests_served = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_kept_and_not_repeated(address: str, tmp_path: Path) -> None:
    path = fetch(f"{address}/whole.zip", CHECKSUM, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "whole.zip"
    assert read_table(path).to_numpy().tolist() == [["1", "2", "3", "4"]]
    assert fetch(f"{address}/whole.zip", CHECKSUM, tmp_path / "new" / "folder") == path
    assert Handler.requests_served == 1


def test_a_damaged_copy_is_replaced(address: str, tmp_path: Path) -> None:
    (tmp_path / "whole.zip").write_bytes(b"something else")
    assert fetch(f"{address}/whole.zip", CHECKSUM, tmp_path).read_bytes() == ARCHIVE


@pytest.mark.parametrize(
    ("file", "checksum", "message"),
    [
        ("whole.zip", "md5:" + "0" * 32, "what came is not the file expected .*md5:000.* nothing was kept"),
        ("cut.zip", CHECKSUM, "could not be downloaded to .* nothing was kept. Check the network"),
        ("absent.zip", CHECKSUM, "could not be downloaded to .*404"),
    ],
)
def test_bad_downloads_leave_nothing_behind(
    address: str, tmp_path: Path, file: str, checksum: str, message: str
) -> None:
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(f"{address}/{file}", checksum, tmp_path)
    assert f"or download {address}/{file} by hand" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:  # bound, but nobody listens: the connection is refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/whole.zip"
        with pytest.raises(DownloadError, match=r"could not be downloaded to .* Check the network and try again"):
            fetch(url, CHECKSUM, tmp_path)
    assert list(tmp_path.iterdir()) == []
