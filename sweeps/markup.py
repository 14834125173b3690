"""Markup: pieces of an HTML page. Whatever is no piece is text, and is escaped."""

import struct
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Final, final

_PIXELS: Final = 1.6
"""Pixels of a picture for one of the page: fine screens have more of them."""
_EMPTY: Final = ("img", "br", "wbr", "meta")


@final
class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, /, *content: str, **attributes: str) -> Html:
    """One element.

    Args:
        element: Its name.
        *content: What it holds: other pieces as they are, and plain text, which is escaped.
        **attributes: Its attributes; an underscore at the end of a name is dropped.

    Returns:
        The element.
    """
    named = "".join(f' {key.rstrip("_")}="{escape(it)}"' for key, it in attributes.items())
    if element in _EMPTY:
        return Html(f"<{element}{named}>")
    return Html(f"<{element}{named}>{joined(*content)}</{element}>")


def joined(*content: str) -> Html:
    """Pieces and plain text one after the other."""
    return Html("".join(one if isinstance(one, Html) else escape(one) for one in content))


def breakable(text: str) -> Html:
    """A dotted key or a path that a narrow screen may break after each dot or slash."""
    pieces = escape(text).replace(".", ".<wbr>").replace("/", "/<wbr>")
    return Html(pieces)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, foot: Sequence[str] = ()) -> Html:
    """A table that scrolls sideways where it is too wide.

    Args:
        head: Titles of the columns.
        rows: Cells of each row; the first one names the row.
        foot: Cells of a last row that sums up, if any.

    Returns:
        The table.
    """
    body = [_row(cells) for cells in rows]
    parts = [
        tag("thead", tag("tr", *(tag("th", one, scope="col") for one in head))),
        tag("tbody", *body),
    ]
    if foot:
        parts.append(tag("tfoot", _row(foot)))
    return tag("div", tag("table", *parts), class_="wide", tabindex="0")


def picture(png: bytes, *, told: str, caption: str = "") -> Html:
    """A picture that is part of the page, with more pixels than it takes place.

    Args:
        png: The picture.
        told: What it shows, for those who do not see it.
        caption: What stands below it.

    Returns:
        The figure.
    """
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    width, height = (round(one / _PIXELS) for one in struct.unpack(">II", png[16:24]))
    parts = [tag("img", src=source, alt=told, width=str(width), height=str(height))]
    if caption:
        parts.append(tag("figcaption", caption))
    return tag("figure", *parts)


def _row(cells: Sequence[str]) -> Html:
    first, *others = cells
    return tag("tr", tag("th", first, scope="row"), *(tag("td", one) for one in others))
