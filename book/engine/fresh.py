"""What a build takes over from the one before it, and what it does not.

Sphinx keeps the pages it has read and writes those again that are newer than what it
kept. Left alone, it misses much: a file replaced by an older one, a label that went
while another page still links to it, a style that all pages name, pictures that no page
shows any more. Here a page is read again when the *content* of a file behind it is
another one, all pages are written again when what they say of each other is, and
pictures go with the last page that shows them.

``engine.build`` does the rest: a build starts from the last one that ended well.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, cast

from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.domains.math import MathDomain
from sphinx.environment import BuildEnvironment

from engine import BOOK, frontend

AFTER_SPHINX = 900  # which numbers figures and sections in the same step


def _content(path: Path) -> str:
    """A digest of a file's content; empty if there is no such file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _start(app: Sphinx) -> None:
    """Each file is read once a build: what is noted was there before its page."""
    app.content_of = functools.cache(_content)  # type: ignore[attr-defined]


def _behind(app: Sphinx, docname: str) -> list[str]:
    """The content behind a page: of its own file, and of those it depends on."""
    files = [app.env.doc2path(docname), *sorted(app.env.dependencies.get(docname, ()))]
    return [app.content_of(Path(app.srcdir, file)) for file in files]  # type: ignore[attr-defined]


def _outdated(
    app: Sphinx,
    env: BuildEnvironment,
    added: set[str],
    changed: set[str],
    removed: set[str],
) -> set[str]:
    """The pages to read again; all of them if a page came or went."""
    if app.builder.format == "html":
        for docname in removed:
            page = cast(StandaloneHTMLBuilder, app.builder).get_outfilename(docname)
            Path(page).unlink(missing_ok=True)
    if added or removed:
        return set(env.found_docs)
    known: dict[str, list[str]] = getattr(env, "engine_behind", {})
    return {one for one in env.found_docs if known.get(one) != _behind(app, one)}


def _forget(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Forget all pages that are read again before the first of them is read.

    Else a label that moved to an earlier page is there twice for a moment.
    """
    for docname in docnames:
        app.emit("env-purge-doc", env, docname)
        env.clear_doc(docname)


def _said_of_pages(app: Sphinx) -> str:
    """A digest of all that a page may say of others, and of what all are made with."""
    env = app.env
    math = cast(MathDomain, env.get_domain("math"))
    said: list[Any] = [
        sorted(map(str, domain.get_objects())) for domain in env.domains.values()
    ]
    for table in (math.equations, env.toc_secnumbers, env.toc_fignumbers):
        said.append(sorted(table.items()))
    for docname in sorted(env.found_docs):
        headings = env.metadata[docname].get("myst_slugs", {})
        said.append(sorted((slug, *rest) for slug, (_, *rest) in headings.items()))
    for folder in ("templates", "styles", "scripts"):
        said += [_content(path) for path in sorted((BOOK / folder).iterdir())]
    said += [path.name for path in frontend.live_modules(app)]
    return hashlib.sha256(repr(said).encode()).hexdigest()


def _note(app: Sphinx, env: BuildEnvironment) -> set[str]:
    """Note what is behind each page; return the pages to write again."""
    behind = {docname: _behind(app, docname) for docname in env.found_docs}
    before, said = getattr(env, "engine_said", ""), _said_of_pages(app)
    vars(env).update(engine_behind=behind, engine_said=said)
    return set(env.found_docs) if before != said else set()


def _prune(app: Sphinx, exception: Exception | None) -> None:
    """Remove pictures and downloads that no page has any more."""
    if exception is not None or app.builder.format != "html":
        return
    made, env = Path(app.outdir), app.env
    used = {made / "_images" / name for _, name in env.images.values()}
    used |= {made / "_downloads" / name for _, name in env.dlfiles.values()}
    outputs = (made.parent / "jupyter_execute").resolve()  # pictures of notebooks
    used |= {Path(app.srcdir, path).resolve() for path in env.images}
    folders = made / "_images", made / "_downloads"
    found = [path for folder in folders for path in folder.rglob("*")]
    for path in (*found, *outputs.glob("*")):
        if path.is_file() and path not in used:
            path.unlink()


def register(app: Sphinx) -> None:
    """Let pages follow their sources, and files their pages."""
    app.connect("builder-inited", _start)
    app.connect("env-get-outdated", _outdated)
    app.connect("env-before-read-docs", _forget)
    app.connect("env-get-updated", _note, priority=AFTER_SPHINX)
    app.connect("build-finished", _prune)
