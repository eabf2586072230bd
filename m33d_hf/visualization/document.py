"""A report as data, written as self-contained HTML and as Markdown from the same blocks."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m33d_hf.visualization.canvas import data_uri


@dataclass(frozen=True)
class Heading:
    """A section title; level 1 is the document's."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Text with `**bold**`, `*italics*` and `` `code` ``; `kind` "lead" or "warning" sets it apart."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of texts; `kind` as for paragraphs."""

    items: Sequence[str]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first column is left-aligned, the others right-aligned unless `left` names them.

    Attributes:
        header: column titles.
        rows: as long as the header each.
        left: indices of further left-aligned columns.
        quiet: indices of rows printed in grey (floors, references).
        note: printed below.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = ()
    quiet: Sequence[int] = ()
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Code:
    """Text to copy, letter for letter: commands, settings. With a `summary` it is folded away until that is clicked."""

    text: str
    summary: str = ""


Block = Heading | Paragraph | Bullets | Table | Picture | Code

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f6f8; color: #1f2933; font: 16px/1.55 system-ui, "Segoe UI", "Helvetica
Neue", Arial,
  "DejaVu Sans", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 2.5rem 2rem 4rem; background: #fff; min-height: 100vh;
  box-sizing: border-box; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; padding-top: 1.1rem; border-top: 1px solid #e4e8ed; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .6rem 0; max-width: 50rem; }
.lead { font-size: 1rem; background: #f0f5fa; border-left: 4px solid #0072b2; padding: .8rem 1.1rem;
  max-width: none; }
p.warning { background: #fdf1e7; border-left: 4px solid #d55e00; padding: .8rem 1.1rem; max-width: none; }
ul { max-width: 50rem; padding-left: 1.3rem; } ul.lead { max-width: none; padding-left: 2rem; } li { margin: .3rem 0; }
.scroll { overflow-x: auto; margin: .9rem 0 .3rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: .38rem .75rem; text-align: right; border-bottom: 1px solid #e4e8ed; vertical-align: top; }
th { font-weight: 600; border-bottom: 2px solid #c3ccd5; vertical-align: bottom; }
td { white-space: nowrap; }
th.l, td.l { text-align: left; white-space: normal; min-width: 8.5rem; }
tr.quiet td { color: #6b7785; }
.note { color: #6b7785; font-size: .85rem; margin-top: .2rem; }
figure { margin: 1.1rem 0 1.6rem; } figure img { max-width: 100%; height: auto; }
figcaption { color: #52606d; font-size: .87rem; max-width: 50rem; }
pre { background: #eef1f4; padding: .8rem 1.1rem; border-radius: 3px; font-size: .85rem; margin: .6rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: #0072b2; }
code { background: #eef1f4; padding: .08em .3em; border-radius: 3px; font-size: .9em; }
@media print { body, main { background: #fff; } main { padding: 0; } }
"""


def flops_text(flops: float) -> str:
    """FLOPs with a unit, three digits."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops:.0f} FLOP"


def _inline(text: str) -> str:
    """Escape, then code, bold and italics."""
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
    return re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", escaped)


def _tag(name: str, text: str, css: str = "") -> str:
    """An element with inline text; `css` is its class."""
    attribute = f' class="{css}"' if css else ""
    return f"<{name}{attribute}>{text}</{name}>"


def _table_html(table: Table) -> str:
    left = {0, *table.left}

    def line(row: Sequence[str], tag: str, css: str = "") -> str:
        cells = (_tag(tag, _inline(text), "l" if i in left else "") for i, text in enumerate(row))
        return _tag("tr", "".join(cells), css)

    body = "\n".join(line(row, "td", "quiet" if i in table.quiet else "") for i, row in enumerate(table.rows))
    inner = _tag("thead", line(table.header, "th")) + _tag("tbody", body)
    note = _tag("p", _inline(table.note), "note") if table.note else ""
    return _tag("div", _tag("table", inner), "scroll") + note


def _block_html(block: Block) -> str:
    if isinstance(block, Heading):
        return _tag(f"h{block.level}", _inline(block.text))
    if isinstance(block, Paragraph):
        return _tag("p", _inline(block.text), block.kind)
    if isinstance(block, Bullets):
        return _tag("ul", "".join(_tag("li", _inline(item)) for item in block.items), block.kind)
    if isinstance(block, Table):
        return _table_html(block)
    if isinstance(block, Code):
        text = _tag("pre", html.escape(block.text, quote=False))
        return _tag("details", _tag("summary", _inline(block.summary)) + text) if block.summary else text
    image = f'<img src="{data_uri(block.path)}" alt="{html.escape(block.caption)}">'
    return _tag("figure", image + _tag("figcaption", _inline(block.caption)))


def to_html(blocks: Sequence[Block], title: str) -> str:
    """One file without links to others: styles inside, pictures as data URIs."""
    body = "\n".join(_block_html(block) for block in blocks)
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}{viewport}<style>{_STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _escaped(text: str) -> str:
    """Text that Markdown would take for an HTML tag, taken for text; code is left alone."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"<(?=[A-Za-z/!?])", r"\\<", part) for part in parts)


def _block_markdown(block: Block, folder: Path) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_escaped(block.text)}"
    if isinstance(block, Paragraph):
        return f"> {_escaped(block.text)}" if block.kind else _escaped(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_escaped(item)}" for item in block.items)
    if isinstance(block, Picture):
        link = Path(os.path.relpath(block.path, folder)).as_posix()
        return f"![{block.caption}]({link})\n\n*{block.caption}*"
    if isinstance(block, Code):
        return (f"{block.summary}:\n\n" if block.summary else "") + f"```\n{block.text}\n```"
    left = {0, *block.left}
    rule = ["---" if i in left else "---:" for i in range(len(block.header))]
    lines = []
    for row in (block.header, rule, *block.rows):
        lines.append("| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in row) + " |")
    text = "\n".join(lines)
    return f"{text}\n\n{block.note}" if block.note else text


def to_markdown(blocks: Sequence[Block], folder: Path) -> str:
    """The same content; pictures are linked relative to `folder`."""
    return "\n\n".join(_block_markdown(block, folder) for block in blocks) + "\n"


def write_both(blocks: Sequence[Block], title: str, page: Path, text: Path) -> tuple[Path, Path]:
    """Write the same blocks as HTML and, beside it, as Markdown; return the paths."""
    page.write_text(to_html(blocks, title), encoding="utf-8")
    text.write_text(to_markdown(blocks, text.parent), encoding="utf-8")
    return page, text
