"""Published weights, downloaded: the only place in towernet that opens a connection for weights.

A download that is cut is kept as `….part` and continued; a file has its own name, and its record,
only when its size and its hash were checked.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from towernet import __version__, files
from towernet.errors import DataError, EnvironmentFault
from towernet.starts.known import WeightSet
from towernet.starts.places import Stored, record_path, stored_path
from towernet.words import in_bytes, one_line

# For tests, and for mirrors with the same paths: replaces scheme and host of all addresses.
BASE_VARIABLE = "TOWERNET_DOWNLOAD_BASE"

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30
_MOST_CUTS = 5  # a download that is cut so often without a new byte is given up
_MAX_BYTES = 2**32  # as in `towernet.models.foreign`
_SHA256 = re.compile("[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

_Cut = (http.client.HTTPException, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Offer:
    """What a server offers: a file, before it is downloaded.

    Args:
        published: The set of weights.
        url: Where the file is.
        num_bytes: Its size.
        digits: Of its SHA-256, as many as the publisher gives; '' if it gives none.
    """

    published: WeightSet
    url: str
    num_bytes: int
    digits: str


def ask(published: WeightSet) -> Offer:
    """Ask the server for the size and the hash of a file.

    Raises:
        EnvironmentFault: the server cannot be reached, or does not have the file.
        DataError: the file is not the published one, or larger than any network.
    """
    url = _address(published.url)
    with _sentences(published, url):
        redirects = _Redirects()
        with _open(redirects, url, "HEAD") as response:
            headers = response.headers
    # The hub describes the file before it redirects to where the file is.
    size = redirects.linked.get("X-Linked-Size") or headers.get("Content-Length")
    num_bytes = int(size) if size is not None and size.isdecimal() else published.num_bytes
    etag = (redirects.linked.get("X-Linked-ETag") or headers.get("X-Linked-ETag") or "").strip('"')
    digits = etag if published.hub_id and _SHA256.fullmatch(etag) else ""
    if num_bytes is None:
        raise EnvironmentFault(
            f"the server does not say how large {url} is; download it elsewhere and give it with"
            f" --weights {published.network}=FILE"
        )
    if published.num_bytes not in (None, num_bytes):
        raise DataError(
            f"{url} has {num_bytes:,} bytes, and {published.title} has {published.num_bytes:,};"
            f" get that file elsewhere and give it with --weights {published.network}=FILE"
        )
    if num_bytes > _MAX_BYTES:
        raise DataError(
            f"{url} has {in_bytes(num_bytes)}, and the limit is {in_bytes(_MAX_BYTES)}; choose"
            " other weights"
        )
    return Offer(published, url, num_bytes, published.sha256 or digits)


def download(offer: Offer, progress: Callable[[str, int, int], None]) -> Path:
    """Download weights into the store, or continue to; return the file.

    Args:
        offer: From `ask`.
        progress: Called with what is done, and the megabytes done and in total.

    Raises:
        EnvironmentFault: the connection fails, or the disk; what has arrived is kept.
        DataError: the file is not the published one; nothing is kept.
        ConfigError: another process downloads the same file.
    """
    published = offer.published
    path = stored_path(published)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.refused(path, error) from error
    with files.lock(path.with_name(f"{path.name}.lock"), holder=f"the download of {path}"):
        num_cuts = 0
        while _size(part) < offer.num_bytes:
            before = _size(part)
            with _sentences(published, offer.url):
                _fetch(offer, part, progress)
            num_cuts = 0 if _size(part) > before else num_cuts + 1
            if num_cuts >= _MOST_CUTS:
                raise EnvironmentFault(
                    f"the download of {offer.url} was cut after {_size(part):,} bytes; run the same"
                    " command again to continue it"
                )
        digest = _checked(part, offer)
        files.remove(record_path(path))  # of an earlier file, which no longer exists from here on
        files.move(part, path)
        stored = Stored(
            weights=published.described(digest),
            set_name=published.name,
            num_bytes=path.stat().st_size,
        )
        files.write_json(record_path(path), stored.model_dump())
    return path


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _fetch(offer: Offer, part: Path, progress: Callable[[str, int, int], None]) -> None:
    """Download what is missing, until the end or until the connection is cut."""
    done = _size(part)
    headers = {"Range": f"bytes={done}-"} if done else {}
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(_open(_Redirects(), offer.url, "GET", headers))
        except urllib.error.HTTPError as error:
            if error.code == 416 and done:  # nothing more, or another file: from the start
                files.remove(part)
                return
            raise
        if response.status != 206 or _start(response.headers) != done:
            done = 0  # a server without ranges sends all of it
        with _opened(part, done) as stream:
            while True:
                try:
                    chunk = response.read(_CHUNK_BYTES)
                except _Cut:
                    break
                if not chunk:
                    break
                done += len(chunk)
                if done > offer.num_bytes:
                    files.remove(part)
                    raise DataError(
                        f"{offer.url} sent more than {offer.num_bytes:,} bytes, so nothing was"
                        " kept; try again later"
                    )
                _write(part, stream, chunk)
                progress("downloading, MB", int(done / 1e6), max(1, int(offer.num_bytes / 1e6)))
            _sync(part, stream)


def _start(headers: Message) -> int | None:
    found = _RANGE.fullmatch(headers.get("Content-Range", ""))
    return int(found[1]) if found else None


@contextlib.contextmanager
def _opened(part: Path, done: int) -> Any:
    """Open the part for writing after its first bytes."""
    try:
        stream = part.open("ab" if done else "wb")
    except OSError as error:
        raise files.refused(part, error) from error
    with stream:
        yield stream


def _write(part: Path, stream: IO[bytes], chunk: bytes) -> None:
    try:
        stream.write(chunk)
    except OSError as error:
        raise files.refused(part, error, _size(part)) from error


def _sync(part: Path, stream: IO[bytes]) -> None:
    try:
        stream.flush()
        os.fsync(stream.fileno())
    except OSError as error:
        raise files.refused(part, error, _size(part)) from error


def _checked(part: Path, offer: Offer) -> str:
    """Return the hash of a complete download; remove it if it is not the published file."""
    digest = files.sha256(part)
    if not digest.startswith(offer.digits) or _size(part) != offer.num_bytes:
        files.remove(part)
        raise DataError(
            f"{offer.url} is not {offer.published.title}: its SHA-256 starts with {digest[:8]} and"
            f" should start with {offer.digits[:8]}, so nothing was kept; try again, or give a file"
            f" with --weights {offer.published.network}=FILE"
        )
    return digest


def _address(url: str) -> str:
    base = os.environ.get(BASE_VARIABLE)
    if not base:
        return url
    parts = urllib.parse.urlsplit(url)
    return base.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except from https to http; keeps what the hub says before the first."""

    def __init__(self) -> None:
        self.linked: dict[str, str] = {}

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request, of the same method."""
        for name in ("X-Linked-Size", "X-Linked-ETag"):
            if name in headers:
                self.linked.setdefault(name, headers[name])
        if req.type == "https" and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not encrypted")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            following.method = req.get_method()
        return following


def _open(
    redirects: _Redirects, url: str, method: str, headers: dict[str, str] | None = None
) -> Any:
    request = urllib.request.Request(
        url,
        method=method,
        headers={"User-Agent": f"towernet/{__version__}", "Accept-Encoding": "identity"}
        | (headers or {}),
    )
    return urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_S)


@contextlib.contextmanager
def _sentences(published: WeightSet, url: str) -> Any:
    """Turn the many errors of a connection into one sentence."""
    host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
    instead = f"download {url} elsewhere and give it with --weights {published.network}=FILE"
    proxy = _proxy(url)
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code == 407:
            raise EnvironmentFault(_proxy_asks(proxy)) from error
        found = {
            401: "asks for a login",
            403: "refuses it",
            404: "no longer has it",
            410: "no longer has it",
        }.get(error.code, "failed")
        raise EnvironmentFault(
            f"{url} cannot be downloaded: {host} {found} (status {error.code}); try later, or"
            f" {instead}"
        ) from error
    except (urllib.error.URLError, *_Cut) as error:
        reason = one_line(str(getattr(error, "reason", error)) or type(error).__name__)
        if "407" in reason and proxy:
            raise EnvironmentFault(_proxy_asks(proxy)) from error
        through = f" through the proxy {proxy}" if proxy else ""
        check = "the proxy" if proxy else "the connection"
        raise EnvironmentFault(
            f"{host} cannot be reached{through} ({reason}); check {check}, or {instead}"
        ) from error


def _proxy(url: str) -> str:
    """Return the proxy that is used for an address, without a password; '' for none."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "").rpartition("@")[2]


def _proxy_asks(proxy: str) -> str:
    return (
        f"the proxy {proxy} asks for a login (status 407); set HTTPS_PROXY to"
        " http://USER:PASSWORD@HOST:PORT"
    )
