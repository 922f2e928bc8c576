"""A model's Markdown as WhatsApp shows text, cut into messages of bearable length.

WhatsApp knows *bold*, _italic_, ~strikethrough~, `code`, ```blocks```, lists and quotes, and no links, headings or tables
(WhatsApp Help Center, "How to format your messages").
"""

import re
from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MOST_CHARS = 100_000
_MOST_CELLS = 4_000
_MOST_BRACKETS = 400
_DELIMITERS = re.compile(r"[\s>|:-]*")
_MARKS = {"strong": "*", "em": "_", "s": "~"}
_MANY_LINES = re.compile(r"\n{3,}")


def whatsapp_text(markdown: str) -> str:
    """The same text with WhatsApp's marks; what is no Markdown comes through as it is.

    A text of more than 100,000 characters comes through as it is; so do tables that may have more than 4,000 cells, and links
    in a text with more than 400 opening brackets: for each the parser looks at all that follows.
    """
    if len(markdown) > _MOST_CHARS:
        return markdown
    blocks = _blocks(_parser(_cells(markdown) <= _MOST_CELLS, markdown.count("[") <= _MOST_BRACKETS).parse(markdown))
    return _MANY_LINES.sub("\n\n", blocks).strip()


@cache
def _parser(tables: bool, links: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough"])
    if tables:
        parser.enable("table")
    return parser if links else parser.disable(["link", "image", "reference"])


def _cells(markdown: str) -> int:
    """How many cells its tables have at most: the parser fills up each row to as many as the line below the head has."""
    lines = markdown.split("\n")
    columns = max((line.count("|") + 1 for line in lines if "-" in line and _DELIMITERS.fullmatch(line)), default=0)
    return columns * len(lines)


def _blocks(tokens: Sequence[Token]) -> str:
    writer = _Writer()
    for token in tokens:
        writer.take(token)
    return writer.text()


class _Writer:
    """Walks the parsed blocks once; `_prefix` is what each line of the present nesting begins with."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._lists: list[int | None] = []
        self._item = ""
        self._quotes = 0
        self._heading = False
        self._cells: list[str] = []
        self._headers: list[str] = []
        self._in_table = False
        self._in_head = False

    def text(self) -> str:
        return "".join(self._parts)

    def take(self, token: Token) -> None:
        match token.type:
            case "inline":
                self._inline(token)
            case "heading_open" | "heading_close":
                self._heading = token.nesting == 1
            case "bullet_list_open":
                self._lists.append(None)
            case "ordered_list_open":
                self._lists.append(int(token.attrs.get("start", 1)))
            case "bullet_list_close" | "ordered_list_close":
                self._lists.pop()
                self._end(1 if self._lists else 2)
            case "list_item_open":
                self._begin_item()
            case "blockquote_open" | "blockquote_close":
                self._quotes += token.nesting
            case "fence" | "code_block":
                self._line(f"```{token.content.rstrip()}```", 2)
            case "hr":
                self._line("———", 2)
            case "thead_open" | "thead_close":
                self._in_head = token.nesting == 1
            case "table_open":
                self._in_table, self._headers = True, []
            case "table_close":
                self._in_table = False
                self._end(2)
            case "tr_open":
                self._cells = []
            case "tr_close":
                self._row()

    def _inline(self, token: Token) -> None:
        words = _words(token.children or [])
        if self._heading:
            words = f"*{words.strip('*')}*" if words.strip("*") else ""
        if self._in_table:
            self._cells.append(words)
        else:
            self._line(words, 1 if self._lists else 2)

    def _row(self) -> None:
        """A table's row becomes a line: each cell under its column's name, because WhatsApp has no columns."""
        if self._in_head:
            self._headers = self._cells
            return
        pairs = [
            f"{name}: {cell}" if name else cell
            for name, cell in zip([*self._headers, *[""] * len(self._cells)], self._cells, strict=False)
            if cell
        ]
        if pairs:
            self._line("- " + ", ".join(pairs), 1)

    def _begin_item(self) -> None:
        number = self._lists[-1]
        indent = "  " * (len(self._lists) - 1)
        if number is None:
            self._item = f"{indent}- "
        else:
            self._item = f"{indent}{number}. "
            self._lists[-1] = number + 1

    def _line(self, words: str, breaks: int) -> None:
        lead = "> " * min(self._quotes, 1)
        first, rest = self._item or "", " " * len(self._item)
        self._item = ""
        lines = words.split("\n")
        shown = [f"{lead}{first if index == 0 else rest}{line}" for index, line in enumerate(lines)]
        self._parts.append("\n".join(shown) + "\n" * breaks)

    def _end(self, breaks: int) -> None:
        missing = breaks - (len(self._parts[-1]) - len(self._parts[-1].rstrip("\n")) if self._parts else breaks)
        self._parts.append("\n" * max(0, missing))


def _words(children: Sequence[Token]) -> str:
    parts: list[str] = []
    links: list[tuple[str, int]] = []
    for child in children:
        name = child.type.removesuffix("_open").removesuffix("_close")
        if name in _MARKS:
            parts.append(_MARKS[name])
        elif child.type == "link_open":
            links.append((str(child.attrs.get("href", "")), len(parts)))
        elif child.type == "link_close":
            href, start = links.pop()
            label = "".join(parts[start:])
            parts[start:] = [label if href in {label, f"mailto:{label}", f"http://{label}"} else f"{label} ({href})"]
        elif child.type == "image":
            parts.append(" ".join(part for part in (child.content, str(child.attrs.get("src", ""))) if part))
        elif child.type == "code_inline":
            parts.append(f"`{child.content}`")
        elif child.type in {"softbreak", "hardbreak"}:
            parts.append("\n")
        else:
            parts.append(child.content)
    return "".join(parts)


_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+")


def split_text(text: str, most: int) -> tuple[str, ...]:
    """`text` in parts of at most `most` characters: cut between paragraphs, else lines, sentences, words, else anywhere."""
    parts: list[str] = []
    rest = text.strip()
    while len(rest) > most:
        cut = _cut(rest, most)
        parts.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return tuple(part for part in (*parts, rest) if part)


def _cut(text: str, most: int) -> int:
    """Where to cut: the last good place, unless it would leave a part less than half as long as it may be."""
    window = text[: most + 1]
    sentence = max((match.end() for match in _SENTENCE.finditer(window)), default=0)
    for place in (window.rfind("\n\n"), window.rfind("\n"), sentence, window.rfind(" ")):
        if most // 2 <= place <= most:
            return place
    return most
