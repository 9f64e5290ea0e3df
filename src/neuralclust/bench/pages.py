"""Headings, tables and pictures, as Markdown or as a page of HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Heading(NamedTuple):
    level: int
    text: str


class Grid(NamedTuple):
    header: Sequence[str]
    lines: list[list[str]]


class Picture(NamedTuple):
    path: str
    caption: str


Block = Heading | Grid | Picture | str


def markdown(blocks: Iterable[Block]) -> str:
    """As Markdown."""
    out: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            out.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Grid):
            if block.lines:
                lines = [block.header, ["---"] * len(block.header), *block.lines]
                out.append("\n".join("| " + " | ".join(x.replace("|", "\\|") for x in line) + " |" for line in lines))
        elif isinstance(block, Picture):
            out.append(f"![{block.caption}]({block.path})\n\n{block.caption}")
        else:
            out.append(block)
    return "\n\n".join(out) + "\n"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
img { max-width: 100%; }
th { border-bottom: 2px solid #888; }
"""


def page(blocks: Iterable[Block], title: str = "neuralclust: results") -> str:
    """As one page of HTML that needs nothing else."""
    body: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            body.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Grid):
            head = "".join(f"<th>{html.escape(name)}</th>" for name in block.header)
            lines = ("".join(f"<td>{html.escape(x)}</td>" for x in line) for line in block.lines)
            body.append(f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")
        elif isinstance(block, Picture):
            caption, path = html.escape(block.caption), html.escape(block.path)
            body.append(f'<figure><img src="{path}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
        else:
            body.append(f"<p>{html.escape(block).replace('`', '')}</p>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style>{''.join(body)}</html>\n"
    )
