"""The parts of a piece of MyST markdown: what two languages share, and the prose.

:func:`dissect` reads the text with the site's own parser and lists its blocks in order:
headings, list items, equations, the contents of directives, HTML elements … Each knows
what it stands in and what its text holds: words, formulas, code, links, numbers. How
words are emphasised is not kept: languages differ in that.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, NamedTuple

import yaml
from docutils.parsers.rst.directives.misc import TestDirective
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.directives import parse_directive_text
from myst_parser.parsers.mdit import create_md_parser
from myst_parser.parsers.parse_html import HtmlToAst

from engine.pairs import LANGUAGES, ROOT

Definitions = dict[str, Any]  # markdown-it's "env": links and footnotes by their names

_MATH_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ROLE_TARGET = re.compile(r"(.*?)\s*<([^<>]+)>", re.DOTALL)
_ADDRESS = re.compile(r"https?://[^\s<>()\"']*[\w/]")
_DIMENSIONS = re.compile(r"\d-?D\b")  # "2-D" is a word: Hebrew writes it in letters
_SEPARATORS = ",\u00a0\u2009\u202f"  # a space that may break is none
_NUMBER = re.compile(
    rf"\d{{1,3}}(?:[{_SEPARATORS}]\d{{3}})+(?!\d)(?:\.\d+)?"
    r"|\d+(?:\.\d+)?|(?<![\w.])\.\d+"
)

# The argument of a directive is the same in both languages, unless it is a title. Some
# take none: their text may start on the first line.
_TITLED = {"admonition", "list-table", "rubric", "sidebar", "table", "topic"}
_WITHOUT_ARGUMENT = re.compile(
    "attention|caution|danger|error|hint|important|note|seealso|tip|warning"
)
_VERBATIM = re.compile(
    "code|code-block|code-cell|eval-rst|literalinclude|raw|sourcecode|toctree"
)
_LABEL_OPTIONS = ("label", "name")
_PROSE_OPTIONS = ("alt", "caption", "title")
_PROSE_ROLES = {"abbr", "dfn", "sub", "sup"}

_PHRASE = re.compile(  # HTML tags within a sentence; all others make parts
    "a|abbr|b|bdi|bdo|cite|code|dfn|em|i|img|kbd|mark|q|s|samp|small|span|strong|sub"
    "|sup|time|u|var|wbr"
)
_LINK_ATTRIBUTES = {"href", "src"}
_PROSE_ATTRIBUTES = {"alt", "aria-label", "title"}
_OWN_ATTRIBUTES = _LINK_ATTRIBUTES | _PROSE_ATTRIBUTES | {"dir", "id", "lang"}


@dataclass
class Part:
    """One block of a text.

    Attributes:
        kind: what it is: ``heading``, ``list item``, ``{note}``, ``<details>`` …
        content: what it has beside its text: a level, a label, TeX, code, options.
        inside: the kinds of the blocks around it, outermost first.
        worded: whether it has any words.
        words: those of this language; what is marked as another one is left out.
        tex: its formulas as they are written.
        formulas, code, links, numbers: how often each stands in its text.
    """

    kind: str
    content: str = ""
    inside: tuple[str, ...] = ()
    worded: bool = False
    words: list[str] = field(default_factory=list)
    tex: list[str] = field(default_factory=list)
    formulas: Counter[str] = field(default_factory=Counter)
    code: Counter[str] = field(default_factory=Counter)
    links: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)

    @property
    def place(self) -> str:
        """Its kind, after the kinds of the blocks around it."""
        return " > ".join([*self.inside, self.kind])

    @property
    def name(self) -> str:
        """Its place and its content."""
        return f"{self.place} {self.content}".strip()


def dissect(source: str, known: Definitions | None = None) -> list[Part]:
    """The parts of ``source`` in order; the first is the text outside all blocks.

    Args:
        source: MyST markdown.
        known: what the chapter defines, from :func:`definitions`.
    """
    reader = _Reader({} if known is None else known)
    reader.read(source)
    return reader.finish()


def plain(text: str) -> list[Part]:
    """The one part of a text that is no markdown."""
    reader = _Reader({})
    reader.say(text)
    return reader.finish()


def definitions(sources: Iterable[str]) -> Definitions:
    """The links and footnotes that the texts of a chapter define for each other."""
    found: Definitions = {}
    reader = parser()
    with reader.reset_rules():
        reader.core.ruler.disable("inline")
        for source in sources:
            reader.parse(source, found)
    return found


def numbers(text: str) -> list[str]:
    """The numbers of a text in order; ``20,000`` is ``20000``."""
    found = _NUMBER.findall(_DIMENSIONS.sub(" ", text))
    joined = (re.sub(f"[{_SEPARATORS}]", "", number) for number in found)
    return [f"0{number}" if number.startswith(".") else number for number in joined]


@functools.cache
def parser() -> MarkdownIt:
    """The parser that ``_config.yml`` asks for; a cell has no front matter."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    extensions = set(settings["parse"]["myst_enable_extensions"])
    config = MdParserConfig(enable_extensions=extensions)
    return create_md_parser(config, RendererHTML).disable("front_matter")


class _Open(NamedTuple):
    """A block or a phrase that is open.

    Attributes:
        part: its part; a phrase has that of its block.
        tag: its HTML tag; empty for markdown.
        foreign: whether its words are no prose of this language.
    """

    part: Part
    tag: str = ""
    foreign: bool = False


class _WithoutArgument(TestDirective):
    """A directive with any options and no argument; its parent takes an argument."""

    optional_arguments = 0


class _Directive(NamedTuple):
    """A directive, taken apart: ``shared`` is what both languages write alike."""

    name: str
    labels: list[str]
    shared: list[str]
    titles: dict[str, str]
    body: str


def _directive(name: str, argument: str, content: str) -> _Directive:
    """Take a directive apart, as the site does."""
    untitled = _WITHOUT_ARGUMENT.fullmatch(name)
    kind = _WithoutArgument if untitled else TestDirective
    parsed = parse_directive_text(kind, argument, content)
    arguments, options, body = parsed.arguments, parsed.options, parsed.body
    labels = [options.pop(key) for key in _LABEL_OPTIONS if key in options]
    titles = {key: options.pop(key) for key in _PROSE_OPTIONS if key in options}
    if arguments and name in _TITLED:
        titles["title"] = arguments.pop()
    if name == "math":  # its argument is a first line
        body, arguments = arguments + body, []
    exact = [f":{key}: {value}".strip() for key, value in sorted(options.items())]
    return _Directive(name, labels, arguments + exact, titles, "\n".join(body))


class _Reader(HTMLParser):
    """Turns the tokens of markdown into parts.

    HTML that one token opens may be closed by a later one, so markdown and HTML share
    one stack of what is open.
    """

    def __init__(self, known: Definitions) -> None:
        super().__init__()
        self._known = known
        self._parts = [Part("text")]
        self._open = [_Open(self._parts[0])]

    def read(self, source: str) -> None:
        """Add the parts of some markdown."""
        for token in parser().parse(source, self._known):
            self._read_block(token)

    def say(self, text: str) -> None:
        """Add words to the part that is open."""
        part, _, foreign = self._open[-1]
        part.worded |= any(letter.isalpha() for letter in text)
        part.numbers.update(numbers(text))
        if not foreign:
            part.links.update(_ADDRESS.findall(text))
            part.words.append(_ADDRESS.sub(" ", text))

    def finish(self) -> list[Part]:
        """The parts that were read."""
        self._close(0)
        return self._parts

    # What is open

    @property
    def _here(self) -> Part:
        return self._open[-1].part

    def _add(self, kind: str, content: str = "") -> Part:
        outer = self._here
        inside = () if outer is self._parts[0] else (*outer.inside, outer.kind)
        part = Part(kind, content, inside)
        self._parts.append(part)
        return part

    def _enter(self, part: Part, tag: str = "", *, foreign: bool = False) -> None:
        self._open.append(_Open(part, tag, foreign or self._open[-1].foreign))

    def _leave(self) -> None:
        """Close the innermost markdown, with all HTML in it."""
        self._close(max(n for n, one in enumerate(self._open) if not one.tag))

    def _close(self, depth: int) -> None:
        """Close what stands at ``depth``; HTML blocks left open in it make parts."""
        for inner in self._open[depth + 1 :]:
            if inner.part.kind == f"<{inner.tag}>":
                self._add("unclosed tag", inner.part.kind)
        del self._open[depth:]

    # Blocks

    def _read_block(self, token: Token) -> None:
        match token.type:
            case "inline":
                self._read_phrases(token)
            case "fence" | "colon_fence":
                self._read_fence(token)
            case "html_block":
                self._read_html(token)
            case "math_block" | "math_block_label" | "amsmath":
                self._read_equation(token.content, labels=[token.info])
            case "myst_target":
                self._add("label", token.content)
            case "myst_line_comment" | "myst_block_break":
                pass
            case _ if token.nesting < 0:
                self._leave()
            case _:
                kind = token.type.removesuffix("_open").replace("_", " ")
                part = self._add(kind, _content(token))
                if token.nesting > 0:
                    self._enter(part)

    def _read_equation(
        self, tex: str, labels: Iterable[str], options: Iterable[str] = ()
    ) -> None:
        for label in filter(None, labels):
            self._add("label", label)
        part = self._add("equation")
        part.content = " ".join([_formula(tex, part), *options])

    def _read_fence(self, token: Token) -> None:
        name, argument = [*token.info.split(maxsplit=1), "", ""][:2]
        in_colons = token.type == "colon_fence"
        if name.startswith("{") and name.endswith("}"):
            # in colons, three of them start a directive and no option
            no_option = in_colons and token.content.startswith(":::")
            content = "\n" * no_option + token.content
            self._read_directive(_directive(name[1:-1], argument, content))
        elif in_colons:
            self._enter(self._add("<div>", f'class="{name}"'))
            self.read(token.content)
            self._leave()
        else:
            self._add("code block", f"{token.info.strip()}\n{token.content}".strip())

    def _read_directive(self, directive: _Directive) -> None:
        name, labels, shared, titles, body = directive
        if name == "math":
            self._read_equation(body, labels, shared)
            return
        for label in labels:
            self._add("label", label)
        verbatim = _VERBATIM.fullmatch(name)
        content = [*shared, body] if verbatim else shared
        self._enter(self._add(f"{{{name}}}", " ".join(content).strip()))
        for kind, text in titles.items():
            self._read_title(kind, text)
        if not verbatim:
            self.read(body)
        self._leave()

    def _read_title(self, kind: str, text: str) -> None:
        self._enter(self._add(kind))
        for line in parser().parseInline(text, self._known):
            self._read_phrases(line)
        self._leave()

    # Phrases

    def _read_phrases(self, line: Token) -> None:
        if not line.children:
            self._here.content = f"{self._here.content} empty".strip()
        for token in line.children or []:
            self._read_phrase(token)

    def _read_phrase(self, token: Token) -> None:
        part = self._here
        match token.type:
            case "text":
                self.say(token.content)
            case "link_open":
                self._read_attributes(token.attrs)
                self._enter(part, foreign=token.info == "auto")
            case "link_close":
                self._leave()
            case "image":
                self._read_attributes({**token.attrs, "alt": _text(token)})
            case "math_inline":
                part.formulas[_formula(token.content, part)] += 1
            case "code_inline":
                part.code[_squeeze(token.content)] += 1
            case "footnote_ref":
                part.links[f"[^{token.meta['label']}]"] += 1
            case "myst_role":
                self._read_role(token.meta["name"], token.content)
            case "html_inline":
                self._read_html(token)
            case "hardbreak":
                self._add("<br>")
            case _ if token.content:
                self._add(token.type.replace("_", " "), token.content)

    def _read_role(self, name: str, content: str) -> None:
        part = self._here
        if name == "math":
            part.formulas[_formula(content, part)] += 1
        elif name in _PROSE_ROLES:
            self.say(content)
        else:
            titled = _ROLE_TARGET.fullmatch(content)
            title, target = titled.groups() if titled else ("", content)
            part.links[f"{name}:{target}"] += 1
            self.say(title)

    # HTML

    def _read_html(self, token: Token) -> None:
        self.feed(token.content)
        self.close()

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        self.say(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An opening tag. A ``<div>`` that only sets a direction makes no part."""
        attributes = {key: value or "" for key, value in attrs}
        own = sorted({*attributes} - _OWN_ATTRIBUTES)
        content = " ".join(f'{key}="{attributes[key]}"' for key in own)
        if "id" in attributes:
            self._add("label", attributes["id"])
        is_part = not _PHRASE.fullmatch(tag) and (tag != "div" or content)
        part = self._add(f"<{tag}>", content) if is_part else self._here
        self._enter(part, tag, foreign=attributes.get("lang") in LANGUAGES)
        self._read_attributes(attributes)
        if tag in HtmlToAst.void_elements:
            self._open.pop()

    # to a browser, <div/> only opens
    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        """A closing tag; one that closes nothing makes a part."""
        depth = len(self._open) - 1
        while self._open[depth].tag not in {tag, ""}:
            depth -= 1
        if self._open[depth].tag:
            self._close(depth)
        elif tag not in HtmlToAst.void_elements:
            self._add("stray tag", f"</{tag}>")

    def _read_attributes(self, attributes: Mapping[str, str | int | float]) -> None:
        for key, value in attributes.items():
            if key in _LINK_ATTRIBUTES:
                self._here.links[str(value)] += 1
            elif key in _PROSE_ATTRIBUTES:
                self.say(str(value))


def _content(token: Token) -> str:
    """What a block has beside its text."""
    if token.type == "heading_open":
        return token.tag[1:]
    if token.type == "footnote_reference_open":
        return f"[^{token.meta['label']}]"
    attributes = [f"{key}={value}" for key, value in token.attrs.items()]
    return " ".join([*attributes, token.content.strip()]).strip()


def _text(image: Token) -> str:
    """The alternative text of an image."""
    return "".join(one.content for one in image.children or [] if one.type == "text")


def _formula(tex: str, part: Part) -> str:
    r"""A formula with its spaces normalised and the words of ``\text{}`` taken out."""
    part.tex.append(tex)
    part.numbers.update(numbers(" ".join(_MATH_TEXT.findall(tex))))
    return _squeeze(_MATH_TEXT.sub(r"\\text{}", tex))


def _squeeze(text: str) -> str:
    return " ".join(text.split())
