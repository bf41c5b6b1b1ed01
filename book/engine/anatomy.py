"""The parts of a piece of MyST markdown: what two languages share, and the prose.

:func:`dissect` takes the text apart in the order in which markdown binds: fences, then
roles and inline code, then formulas, links and tags. What is left is prose.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

_FENCE = re.compile(
    r"^[ >]*(?P<mark>`{3,}(?=[^`]*$)|~{3,}|:{3,})"
    r"(?:\{(?P<name>[^}\s]+)\})?[ \t]*(?P<rest>.*)$"
)
_OPTION = re.compile(r"^[ >]*:([a-z][\w-]*):(?:[ \t]+(.*))?$", re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->|^%[^\n]*$", re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r"\{([\w:.+-]+)\}(`+)(.+?)\2", re.DOTALL)
_ROLE_TARGET = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.DOTALL)
_CODE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
_DISPLAY = re.compile(
    r"\$\$(?P<tex>.+?)\$\$(?:[ \t]*\((?P<label>[\w:.-]+)\)[ \t]*$)?"
    r"|(?P<ams>\\begin\{(?P<name>[a-z]+\*?)\}.*?\\end\{(?P=name)\})",
    re.DOTALL | re.MULTILINE,
)
_INLINE = re.compile(r"(?<![\\$])\$((?:\\.|(?!\n\s*\n)[^$\\])+?)\$")
_MATH_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_LABEL = re.compile(r"^[ >]*\(([\w:.-]+)\)=[ \t]*$", re.MULTILINE)
_MARKED = re.compile(r'<span\b[^>]*\blang="(?:en|he)"[^>]*>.*?</span>', re.DOTALL)
_LINKS = (  # group 1 is the target; what follows it in the text stays prose
    re.compile(
        r'\]\(\s*<?([^\s()<>]+(?:\([^\s()]*\))?[^\s()<>]*)>?(?:\s+"([^"]*)")?\s*\)'
    ),
    re.compile(r"^\[[^\]^]+\]:[ \t]*(\S+)()", re.MULTILINE),
    re.compile(r"\](\[[^\]]+\])()"),
    re.compile(r"(\[\^[\w-]+\])()"),
    re.compile(r"<([a-z]+:[^\s<>]+)>()"),
    re.compile(r'(?:href|src)="([^"]*)"()'),
    re.compile(r"(https?://[^\s<>()\"']*[\w/])()"),
)
_FOLDED = re.compile(r"<(/?)(details|summary)\b([^>]*)>")
_CLASS = re.compile(r'\bclass="([^"]*)"')
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")
_HEADING = re.compile(r"^[ >]*(#{1,6})[ \t]", re.MULTILINE)
_ITEM = re.compile(r"^[ >]*(?:([-*+])|\d+[.)])[ \t]", re.MULTILINE)
_ROW = re.compile(r"^[ >]*\|.*$", re.MULTILINE)
_DIMENSIONS = re.compile(r"\d-?D\b")  # "2-D" is a word: Hebrew writes it in letters
_NUMBER = re.compile(
    r"\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+"
)

_VERBATIM = {
    "math",
    "code",
    "code-block",
    "code-cell",
    "literalinclude",
    "raw",
    "eval-rst",
}
_EXACT_ARGUMENT = {"figure", "image", "include", "solution", "bibliography", "claims"}
_PROSE_OPTIONS = {"alt", "caption", "title"}
_PROSE_ROLES = {"abbr", "dfn", "sub", "sup"}


@dataclass
class Anatomy:
    """The parts of one text: lists in order, counters of what grammar may reorder."""

    headings: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    equations: list[str] = field(default_factory=list)
    fences: list[str] = field(default_factory=list)
    directives: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    table_rows: list[int] = field(default_factory=list)
    list_items: list[str] = field(default_factory=list)
    formulas: Counter[str] = field(default_factory=Counter)
    code: Counter[str] = field(default_factory=Counter)
    links: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    math_words: list[str] = field(default_factory=list)
    prose: str = ""


def dissect(source: str) -> Anatomy:
    """Take markdown apart."""
    parts = Anatomy()
    text = _take_fences(source, parts)
    text = _COMMENT.sub(" ", text)
    text = _OPTION.sub(lambda match: _take_option(match, parts), text)
    text = _ROLE.sub(lambda match: _take_role(match, parts), text)
    text = _CODE.sub(lambda match: _count(parts.code, _squeeze(match[2])), text)
    text = _DISPLAY.sub(lambda match: _take_equation(match, parts), text)
    text = _INLINE.sub(
        lambda match: _count(parts.formulas, _formula(match[1], parts)), text
    )
    text = _LABEL.sub(lambda match: _append(parts.labels, match[1]), text)
    text = _MARKED.sub(" ", text)
    text = _take_links(text, parts)
    text = _FOLDED.sub(lambda match: _take_folded(match, parts), text)
    text = html.unescape(_TAG.sub(" ", text))
    parts.headings = [len(match[1]) for match in _HEADING.finditer(text)]
    parts.table_rows = [row.replace(r"\|", "").count("|") for row in _ROW.findall(text)]
    text = _ITEM.sub(lambda match: _append(parts.list_items, match[1] or "1."), text)
    parts.numbers = Counter(numbers(text))
    parts.prose = text
    return parts


def numbers(text: str) -> list[str]:
    """The numbers of a text in order; ``20,000`` is ``20000``."""
    found = _NUMBER.findall(_DIMENSIONS.sub(" ", text))
    plain = (re.sub(r"[,\u00a0\u2009\u202f]", "", number) for number in found)
    return [f"0{number}" if number.startswith(".") else number for number in plain]


def _take_fences(source: str, parts: Anatomy) -> str:
    """Take out verbatim fences; of directives that hold prose, only their marks."""
    kept: list[str] = []
    open_marks: list[str] = []
    lines = iter(source.splitlines())
    for line in lines:
        match = _FENCE.match(line)
        if not match:
            kept.append(line)
        elif open_marks and _closes(line, open_marks[-1]):
            open_marks.pop()
        elif match["name"] and match["name"] not in _VERBATIM:
            open_marks.append(match["mark"])
            kept.append(_take_directive(match, parts))
        else:
            kept += _take_verbatim(match, lines, parts)
    return "\n".join(kept)


def _closes(line: str, mark: str) -> bool:
    """Whether ``line`` closes the fence that ``mark`` opened."""
    bare = line.strip(" >\t")
    return bare.startswith(mark) and not bare.strip(mark[0])


def _take_directive(match: re.Match[str], parts: Anatomy) -> str:
    """Note a directive; its argument is prose unless it names something."""
    name, argument = match["name"], match["rest"]
    if name in _EXACT_ARGUMENT:
        parts.directives.append(f"{name} {argument}".strip())
        return ""
    parts.directives.append(name)
    return argument


def _take_verbatim(
    match: re.Match[str], lines: Iterator[str], parts: Anatomy
) -> list[str]:
    """Note and consume a fence that is no prose; an equation stays, in dollars."""
    body = list(takewhile(lambda line: not _closes(line, match["mark"]), lines))
    if match["name"] == "math":
        equation = [line for line in body if not _OPTION.match(line)]
        options = [line for line in body if _OPTION.match(line)]
        return [*options, "$$", match["rest"], *equation, "$$"]
    kind = f"{{{match['name']}}}" if match["name"] else ""
    parts.fences.append("\n".join([f"{kind}{match['rest']}".strip(), *body]))
    return []


def _take_option(match: re.Match[str], parts: Anatomy) -> str:
    key, value = match[1], match[2] or ""
    if key in _PROSE_OPTIONS:
        return value
    return _append(parts.directives, f":{key}: {value}".strip())


def _take_role(match: re.Match[str], parts: Anatomy) -> str:
    name, content = match[1], match[3]
    if name == "math":
        return _count(parts.formulas, _formula(content, parts))
    if name in _PROSE_ROLES:
        return content
    titled = _ROLE_TARGET.match(content)
    title, target = titled.groups() if titled else ("", content)
    _count(parts.links, f"{name}:{target}")
    return title


def _take_equation(match: re.Match[str], parts: Anatomy) -> str:
    """Note an equation; its label stays, as a label of its own."""
    parts.equations.append(_formula(match["tex"] or match["ams"], parts))
    return f"\n({match['label']})=\n" if match["label"] else " "


def _formula(tex: str, parts: Anatomy) -> str:
    r"""A formula with its spaces normalised and the words of ``\text{}`` taken out."""
    parts.math_words += _MATH_TEXT.findall(tex)
    return _squeeze(_MATH_TEXT.sub(r"\\text{}", tex))


def _take_links(text: str, parts: Anatomy) -> str:
    def take(match: re.Match[str]) -> str:
        return _count(parts.links, match[1]) + (match[2] or "")

    for pattern in _LINKS:
        text = pattern.sub(take, text)
    return text


def _take_folded(match: re.Match[str], parts: Anatomy) -> str:
    kind = _CLASS.search(match[3])
    return _append(
        parts.folded, f"{match[1]}{match[2]} {kind[1] if kind else ''}".strip()
    )


def _append(found: list[str], item: str) -> str:
    """Note ``item`` and return what takes its place in the text."""
    found.append(item)
    return " "


def _count(found: Counter[str], item: str) -> str:
    """Count ``item`` and return what takes its place in the text."""
    found[item] += 1
    return " "


def _squeeze(text: str) -> str:
    return " ".join(text.split())
