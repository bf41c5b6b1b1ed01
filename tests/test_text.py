"""Texts, Alice and its sources, byte pairs, blocks of tokens."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers

from course_utils.data import alice
from course_utils.data.alice import (
    ALICE,
    CHAPTERS,
    EDITION,
    TITLE,
    Zipped,
    load_alice,
    retyped,
)
from course_utils.data.download import Address, DownloadError, RemoteFile, fetch
from course_utils.data.genesis import letters, load_genesis
from course_utils.data.registries import Wheel
from course_utils.data.text import (
    _BYTE,
    BytePairs,
    Text,
    Tokens,
    Word,
    bits_per_character,
    load_text,
    split_text,
)


@pytest.fixture(scope="module")
def book() -> Text:
    return load_alice()


@pytest.fixture(scope="module")
def tokens(book: Text) -> Tokens:
    return Tokens(book)


def wrong(value: Any) -> Any:
    """A value of a type that is not allowed."""
    return value


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the real text ---


def test_the_text_is_alice(book: Text) -> None:
    text = book.characters
    assert len(text) == 144_395
    assert hashlib.sha256(text.encode("ascii")).hexdigest() == ALICE.sha256
    assert text.startswith(f"{TITLE}\n\nCHAPTER I. Down the Rabbit-Hole\n\nAlice was")
    assert text.endswith("remembering her own child-life, and the happy summer days.\n")
    assert text.count("CHAPTER ") == CHAPTERS
    assert text.split().count("Alice") == 221
    assert book.complete


def test_the_last_tenth_is_held_out_in_one_piece(book: Text) -> None:
    assert [len(book.train), len(book.held_out)] == [129_955, 14_440]
    tuning = book.tuning()
    assert tuning.characters == book.train
    assert len(tuning.held_out) == 12_996
    assert tuning.fingerprint != book.fingerprint
    assert len(load_alice(0.5).held_out) == 72_198


def test_the_split_of_the_chapters_has_not_moved(tokens: Tokens) -> None:
    """Stored models were trained on it."""
    assert tokens.text.fingerprint == "alice-129955-14440-f470af70"
    assert tokens.pairs.fingerprint == "bytepairs-1024-5030dec7"
    assert [len(tokens.train), len(tokens.held_out)] == [46_270, 5_454]


# --- its sources ---


class Handler(BaseHTTPRequestHandler):
    pages: dict[str, bytes]

    def do_GET(self) -> None:
        body = self.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """A web server with the pages that it is given; says its address."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()

    def with_pages(**pages: bytes) -> str:
        Handler.pages = {f"/{name}": body for name, body in pages.items()}
        return f"http://127.0.0.1:{server.server_port}"

    yield with_pages
    server.shutdown()
    server.server_close()
    thread.join()


PLANTED = b"'Off with her head!'\n" * 50
FILE = RemoteFile("queen.txt", len(PLANTED), hashlib.sha256(PLANTED).hexdigest())


def zipped(**content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name.replace("__", "/"), data)
    return made.getvalue()


def test_an_address_gives_its_file(serve: Callable[..., str], tmp_path: Path) -> None:
    url = serve(book=PLANTED)
    fetch([FILE], [Address(f"{url}/book")], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["queen.txt"]
    assert (tmp_path / "queen.txt").read_bytes() == PLANTED


def test_a_zip_gives_its_member(serve: Callable[..., str], tmp_path: Path) -> None:
    others = {"corpora__other.txt": b"no", "README": b"no"}
    content = {"corpora__queen.txt": PLANTED, **others}
    url = serve(books=zipped(**content))
    fetch([FILE], [Zipped(f"{url}/books", folder="corpora")], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["queen.txt"]
    assert (tmp_path / "queen.txt").read_bytes() == PLANTED


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"<!DOCTYPE html>", "no zip archive; it begins b'<!DOCTYPE html>'"),
        (zipped(queen=PLANTED), "There is no item named 'corpora/queen.txt'"),
        (zipped(corpora__x=PLANTED), "There is no item named"),
        (b"PK" + bytes(3_000), "more than 2000 bytes came"),
    ],
)
def test_a_bad_zip_is_told(
    serve: Callable[..., str], tmp_path: Path, page: bytes, reason: str
) -> None:
    url = serve(books=page)
    bad = Zipped(f"{url}/books", folder="corpora", most=2_000)
    with pytest.raises(DownloadError, match=reason):
        fetch([FILE], [bad], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_content_is_refused(serve: Callable[..., str], tmp_path: Path) -> None:
    url = serve(book=PLANTED[:-1] + b"!")
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch([FILE], [Address(f"{url}/book")], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_source_speaks_of_one_file() -> None:
    assert all(isinstance(source, Zipped | Wheel) for source in alice.SOURCES)
    urls = [one.url for one in alice.SOURCES if isinstance(one, Zipped)]
    urls += [one.url for one in alice.EDITION_SOURCES if isinstance(one, Address)]
    assert all(url.startswith("https://") for url in urls)
    assert len(set(urls)) == 4


# --- the other edition ---

NUMERALS = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
HEAD = "\ufeffThe Project Gutenberg eBook of Alice\r\n\r\n*** START OF THE PROJECT "
EDITED = (
    HEAD
    + "GUTENBERG EBOOK ALICE'S ADVENTURES IN WONDERLAND ***\r\n[Illustration]\r\n\r\n"
    + "Contents\r\n\r\n"
    + "".join(f" CHAPTER {n}.    Of it\r\n" for n in NUMERALS)
    + "".join(
        f"\r\n\r\nCHAPTER {n}.\r\nOf it\r\n\r\n\r\n“Oh _dear!_” said I—“it’s marked\r\n"
        "‘poison,’ isn’t it?”   \r\n"
        for n in NUMERALS
    )
    + "\r\n    THE END\r\n*** END OF THE PROJECT GUTENBERG EBOOK ALICE ***\r\n\r\nUse."
)


def test_an_edition_is_retyped() -> None:
    text = retyped(EDITED)
    chapter = "Of it\n\n\n'Oh DEAR!' said I--'it's marked\n\"poison,\" isn't it?'\n"
    assert text.startswith(f"{TITLE}\n\nCHAPTER I. {chapter}\n")
    assert text.endswith(f"\nCHAPTER XII. {chapter}")
    assert text.count(chapter) == CHAPTERS
    assert text.isascii()
    old = EDITED.replace("THE PROJECT", "THIS PROJECT").replace("\r", "")
    assert retyped(old) == text


@pytest.mark.parametrize(
    ("edition", "message"),
    [
        ("<!DOCTYPE html>", r"marked by START and END, got \[\]"),
        (EDITED[:-60], r"got \['START'\]"),
        (EDITED.replace("\nCHAPTER VI.", "\n"), "12 chapters, got 11"),
    ],
)
def test_half_a_book_is_refused(edition: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        retyped(edition)
    path = tmp_path / "pg11.txt"
    path.write_text(edition, encoding="utf-8")
    assert "it begins b'" in str(EDITION.problem(path))
    path.write_bytes(EDITED.encode())
    assert EDITION.problem(path) is None
    assert EDITION.problem(tmp_path / "other") == "missing"


@dataclass
class Writes:
    """A source that writes the same into every file, or fails."""

    content: bytes | None = None
    name: str = "writer"

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        if self.content is None:
            raise OSError("out of order")
        for file in files:
            (folder / file.name).write_bytes(self.content)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache that no source can fill."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(alice, "SOURCES", [Writes(name="corpora")])
    monkeypatch.setattr(alice, "EDITION_SOURCES", [Writes(name="Gutenberg")])
    return tmp_path / "alice"


def test_the_other_edition_is_announced(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alice, "EDITION_SOURCES", [Writes(EDITED.encode())])
    with pytest.warns(UserWarning, match="ANOTHER EDITION") as caught:
        text = load_alice()
    assert caught[0].filename == __file__  # it points at who asked
    assert "corpora: OSError: out of order" in str(caught[0].message)
    assert not text.complete
    assert text.characters == retyped(EDITED)
    assert text.fingerprint.startswith("alice-other-")


def test_without_any_source_all_are_named(empty: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DownloadError) as caught:
            load_alice()
    message = str(caught.value)
    for part in ("corpora: OSError", "Gutenberg: OSError", str(empty), ALICE.sha256):
        assert part in message


# --- texts of one's own ---


def test_a_text_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "שיר.txt"
    path.write_bytes("\ufeffשלום\r\nעולם, אליס\n".encode())
    text = load_text(path, share=0.25)
    assert text.characters == "שלום\nעולם, אליס\n"
    assert text.held_out == "ליס\n"
    assert text.name == "שיר"
    tokens = Tokens(Text(text.characters * 40, text.characters), 260, 8)
    assert tokens.pairs.decode(tokens.held_out) == text.characters
    path.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match="must be text in UTF-8, got 0xff at byte 3"):
        load_text(path)
    path.write_bytes(b"\xef\xbb\xbfabc\xff")
    with pytest.raises(ValueError, match="got 0xff at byte 6"):
        load_text(path)
    path.write_bytes("a\r\nb\rc\n\n\ufeffd".encode())
    assert load_text(path).characters == "a\nb\nc\n\n\ufeffd"
    with pytest.raises(OSError, match="missing"):
        load_text(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: split_text("a"), ValueError, "got 0 to train and 1 held out"),
        (lambda: split_text(""), ValueError, "must hold characters"),
        (lambda: split_text(wrong(b"abc")), TypeError, "must be text, got bytes"),
        (lambda: split_text("abc", share=1.0), ValueError, "between 0 and 1, got 1.0"),
        (
            lambda: split_text("abc", share=wrong("x")),
            TypeError,
            "share must be a number",
        ),
        (lambda: split_text("ab\ud800c"), ValueError, r"'\\ud800' at place 2"),
        (lambda: Text("a", ""), ValueError, "got 1 to train and 0 held out"),
        (lambda: bits_per_character(torch.zeros(2, 2), 3), ValueError, r"shape \(N,\)"),
        (lambda: bits_per_character(torch.zeros(2), 0), ValueError, "at least 1"),
    ],
)
def test_wrong_texts_are_refused(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_bits_per_character_count_characters() -> None:
    assert bits_per_character(torch.full((6,), -log(8)), 9) == pytest.approx(2.0)


# --- byte pairs ---

STRANGE = [
    "",
    " ",
    "\n\n  x\r\n\t\x00é",
    "שָׁלוֹם, אליס!",
    "👩‍👩‍👧 🏳️‍🌈 \u2028 \ufffd \ufeff",
    unicodedata.normalize("NFD", "Ångström"),
    "".join(map(chr, range(0x250))),
    "\U0010ffff" * 3,
]


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_survives(tokens: Tokens, text: str) -> None:
    pairs = tokens.pairs
    found = pairs.encode(text)
    assert found.dtype == torch.int64
    assert pairs.decode(found) == text
    assert pairs.bytes_of(found) == text.encode()
    other = pairs.encode_with_dropout(text, 0.5, seeded())
    assert pairs.decode(other) == text
    assert torch.equal(pairs.encode_with_dropout(text, 0.0), found)


def test_it_is_what_the_library_says(tokens: Tokens) -> None:
    assert sorted(_BYTE) == sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = tokens.pairs
    library = Tokenizer.from_str(pairs.saved)
    assert pairs.size == library.get_vocab_size() == 1024
    assert sorted(pairs.pieces)[:3] == [b"\x00", b"\x01", b"\x02"]
    assert len(set(pairs.pieces)) == 1024
    assert len(pairs.merges) == 1024 - 256
    for new, (a, b) in enumerate(pairs.merges, start=256):
        assert pairs.pieces[new] == pairs.pieces[a] + pairs.pieces[b]
    copy = BytePairs(pairs.saved)
    assert copy.fingerprint == pairs.fingerprint
    assert torch.equal(copy.encode("Alice"), pairs.encode("Alice"))
    numbers: Any = pairs.encode("Alice").numpy()
    assert pairs.decode(numbers) == pairs.decode(numbers.astype("int32")) == "Alice"


def test_tokenizers_of_other_kinds_are_refused(tokens: Tokens) -> None:
    whole = json.loads(tokens.pairs.saved)
    model, few = whole["model"], {"a": 0, "b": 1}
    for other in (
        whole | {"pre_tokenizer": None},
        whole | {"model": model | {"vocab": model["vocab"] | {"▁the": 1024}}},
        whole | {"model": model | {"vocab": few, "merges": []}},  # no byte but these
    ):
        with pytest.raises(ValueError, match=r"what BytePairs\.saved gives"):
            BytePairs(json.dumps(other))


def test_only_the_training_part_is_counted() -> None:
    train = "the cat sat on the mat, the rat. " * 20
    text, other = Text(train, "zzzz"), Text(train, "qqqq")
    assert Tokens(text, 270, 4).pairs.saved == Tokens(other, 270, 4).pairs.saved
    assert Tokens(text, 270, 4).fingerprint != Tokens(other, 270, 4).fingerprint


def test_the_first_pair_is_the_most_frequent() -> None:
    text = "abababab cdcd " * 5
    pairs = BytePairs.trained(text, 258)
    assert pairs.pieces[256] == b"ab"
    counts = Counter(pairwise(text))
    assert counts.most_common(1)[0][0] == ("a", "b")


def test_dropout_has_the_law_of_the_paper() -> None:
    """Words of three letters, all ways to cut them by hand."""
    pairs = BytePairs.trained("abc " * 30, 258)  # ab, then abc
    assert [pairs.pieces[i] for i in (256, 257)] == [b"ab", b"abc"]
    p, text = 0.3, "abc " * 4_000
    found = pairs.encode_with_dropout(text, p, seeded())
    ends = Counter(pairs.pieces[i] for i in found.tolist())
    words = 4_000
    law = {b"abc": (1 - p) ** 2, b"ab": (1 - p) * p, b"a": p}
    for piece, q in law.items():
        error = 4 * (q * (1 - q) / words) ** 0.5
        assert abs(ends[piece] / words - q) < error, piece


def test_dropout_follows_its_generator(book: Text, tokens: Tokens) -> None:
    text = book.train[:5_000]
    first, second, other = (
        tokens.pairs.encode_with_dropout(text, 0.2, seeded(k)) for k in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len(first) > len(tokens.pairs.encode(text))


def test_words_have_their_tokens(tokens: Tokens) -> None:
    pairs = tokens.pairs
    text = "I am a little  squirrel\nholding a walnut."
    found = pairs.encode(text)
    words = pairs.words(found)
    assert [word.text for word in words] == text.split()
    assert words[0] == Word("I", 0, 1)
    for word in words:
        assert pairs.decode(found[word.first : word.stop]).strip() == word.text
        assert pairs.decode(found[word.first + 1 : word.stop]).strip() != word.text
    assert pairs.words([]) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.encode(b"x"), TypeError, "text must be text, got bytes"),
        (lambda p: p.encode("\udc00"), ValueError, "whole characters"),
        (lambda p: p.decode([1024]), ValueError, "0 … 1023, got 1024 … 1024"),
        (lambda p: p.decode([-1]), ValueError, "0 … 1023, got -1 … -1"),
        (
            lambda p: p.decode(torch.zeros(2)),
            TypeError,
            "int64 tensor, got torch.float",
        ),
        (lambda p: p.decode(torch.zeros(2, 2).long()), ValueError, r"shape \(N,\)"),
        (lambda p: p.decode([65.7]), TypeError, "int64 tensor, got torch.float"),
        (lambda p: p.decode([True]), TypeError, "int64 tensor, got torch.bool"),
        (lambda p: p.words([1.5]), TypeError, "int64 tensor, got torch.float"),
        (lambda p: p.encode_with_dropout("x", 1.0), ValueError, r"\[0, 1\), got 1.0"),
        (lambda p: p.encode_with_dropout("x", 0.1, 3), TypeError, "torch.Generator"),
        (lambda _: BytePairs("{}"), ValueError, "what BytePairs.saved gives"),
        (lambda _: BytePairs.trained("x" * 9, 255), ValueError, "at least 256"),
        (lambda _: BytePairs.trained("ab", 300), ValueError, "at most 257 .* got 300"),
        (lambda _: Tokens(wrong("x")), TypeError, "text must be a Text, got str"),
        (
            lambda p: Tokens(Text("ab" * 9, "a"), 257, 64),
            ValueError,
            "two blocks of 64",
        ),
        (lambda p: Tokens(Text("ab" * 9, "a"), 257, 2, 1.5), ValueError, "dropout"),
    ],
)
def test_wrong_tokens_are_refused(
    tokens: Tokens,
    call: Callable[[Any], object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        call(tokens.pairs)


# --- blocks ---


def counted(letters: int, block: int, dropout: float = 0.0) -> Tokens:
    """Single bytes in a row, each another one, so that a token shows its place."""
    train = "".join(chr(33 + i) for i in range(letters))
    return Tokens(Text(train, "!!!"), 256, block, dropout)


def test_a_pass_visits_every_block_once() -> None:
    data = counted(90, 8)
    assert data.steps(2) == 6  # ⌈11 / 2⌉
    blocks = data._blocks(seeded())
    phases = set()
    for _ in range(20):
        first = next(blocks)
        phase = int(first[0] - data.train[0]) % 8
        count = len(range(phase, 90 - 8, 8))
        rows = [first, *islice(blocks, count - 1)]
        starts = sorted(int(row[0] - data.train[0]) for row in rows)
        assert starts == list(range(phase, 90 - 8, 8))
        phases.add(phase)
    assert len(phases) > 4


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_y_is_one_place_further(book: Text, dropout: float) -> None:
    data = Tokens(split_text(book.train[:8_000]), 300, 16, dropout)
    batches = data.batches(5, seeded())
    for x, y in islice(batches, 2 * data.steps(5)):
        assert x.shape == y.shape == (5, 16)
        assert torch.equal(x[:, 1:], y[:, :-1])
        for a, b in zip(x, y, strict=True):
            assert data.pairs.decode([*a.tolist(), int(b[-1])]) in data.text.train


def test_batches_follow_their_generator(tokens: Tokens) -> None:
    first, second, other = (
        torch.cat([x for x, _ in islice(tokens.batches(4, seeded(k)), 3)])
        for k in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        tokens.batches(0)


def test_the_dropout_falls_to_0_over_the_batches(
    book: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Tokens(split_text(book.train[:8_000]), 300, 16, 0.4)
    encode, shares = BytePairs.encode_with_dropout, []

    def noted(pairs: BytePairs, text: str, share: float, source: Any) -> torch.Tensor:
        shares.append(share)
        return encode(pairs, text, share, source)

    monkeypatch.setattr(BytePairs, "encode_with_dropout", noted)
    steps = 4 * data.steps(5)
    for falls, found in ((steps, 4), (None, 4)):
        shares.clear()
        list(islice(data.batches(5, seeded(), falls), steps))
        assert shares[0] == 0.4
        assert len(shares) <= found  # a pass with dropout has more tokens
        if falls:
            assert all(a - b > 0.05 for a, b in pairwise(shares))
            assert shares[-1] < 0.2
        else:
            assert set(shares) == {0.4}
    rows = data.batches(5, seeded(), 1)
    shares.clear()
    list(islice(rows, steps))
    assert shares == [0.4]  # and none once the number is reached
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        data.batches(5, seeded(), 0)


def test_consecutive_blocks_cover_the_text(tokens: Tokens) -> None:
    x, y = tokens.consecutive(tokens.held_out)
    assert x.shape == (5_453 // 64, 64)
    assert torch.equal(x.flatten(), tokens.held_out[: x.numel()])
    assert torch.equal(y.flatten(), tokens.held_out[1 : x.numel() + 1])
    with pytest.raises(ValueError, match="needs 65 tokens, got 64"):
        tokens.consecutive(tokens.held_out[:64])
    with pytest.raises(ValueError, match=r"shape \(N,\), got \(65, 2\)"):
        tokens.consecutive(torch.zeros(65, 2, dtype=torch.int64))


# --- Genesis --------------------------------------------------------------------------


def test_letters_of_a_book(tmp_path: Path) -> None:
    """Points, notes and signs go; maqaf and full stop stay; chapters stand apart."""
    verse = (
        "<verse><w>וַ/יְהִי</w><seg type='x-maqqef'>־</seg><w>א֑וֹר</w>"
        "<note>a note <w>הערה</w></note><seg type='x-paseq'>׀</seg><w>טוֹב</w>"
        "<seg type='x-sof-pasuq'>׃</seg><seg type='x-pe'>פ</seg></verse>"
    )
    space = "http://www.bibletechnologies.net/2003/OSIS/namespace"
    book = f"<chapter>{verse}{verse}</chapter><chapter>{verse}</chapter>"
    path = tmp_path / "book.xml"
    path.write_text(f"<osis xmlns='{space}'>{book}</osis>", encoding="utf-8")
    line = "ויהי־אור טוב.\n"
    assert letters(path) == f"{line}{line}\n{line}"


def test_genesis() -> None:
    text = load_genesis()
    assert len(text.characters) == 100_263
    assert text.characters.startswith("בראשית ברא אלהים את השמים ואת הארץ.\n")
    assert text.characters.count("\n\n") == 49  # between 50 chapters
    others = set(text.characters) - set("אבגדהוזחטיךכלםמןנסעףפץצקרשת")
    assert others == set("\n .־")
    pairs = Tokens(text, 512).pairs
    assert pairs.decode(pairs.encode("ויאמר אלהים")) == "ויאמר אלהים"
