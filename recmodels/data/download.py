"""Downloads with a checksum."""

from __future__ import annotations

from pathlib import Path

import pooch

SECONDS_WITHOUT_ANSWER = 30


class DownloadError(RuntimeError):
    """A file could not be downloaded whole and sound; the message says why and what to do."""


def fetch(url: str, checksum: str, folder: str | Path) -> Path:
    """Return a file of the folder, downloading it if it is not there with the right content.

    A download is kept only when it is whole: after an error there is nothing new in the folder.

    Args:
        url: where the file is; its last part is the file's name in the folder.
        checksum: algorithm and digest, such as "md5:0e33...", "sha256:...".
        folder: where the file is kept; made if missing.

    Raises:
        DownloadError: no network, a cut connection, a wrong checksum, or a folder that cannot be written.
    """
    folder = Path(folder)
    name = url.rstrip("/").rsplit("/", 1)[-1]
    by_hand = f"or download {url} by hand and give its path instead"
    try:
        path = pooch.retrieve(
            url,
            known_hash=checksum,
            fname=name,
            path=folder,
            downloader=pooch.HTTPDownloader(timeout=SECONDS_WITHOUT_ANSWER),
        )
    except ValueError as error:  # what pooch raises for a checksum that does not match
        raise DownloadError(
            f"{url}: what came is not the file expected ({checksum}); nothing was kept. "
            f"Try again (a proxy may have answered in its place), {by_hand}"
        ) from error
    except OSError as error:  # network errors are of this kind too
        raise DownloadError(
            f"{url}: could not be downloaded to {folder} ({error}); nothing was kept. "
            f"Check the network and try again, {by_hand}"
        ) from error
    return Path(path)
