"""HTML and SVG as text: elements, paragraphs and tables. Whatever comes from a run goes through `text`, so it is shown and never obeyed."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.report.tables import Grid

VOID = ("img",)


def text(words: object) -> str:
    """`words` as markup that shows them as they are."""
    return html.escape(str(words))


def element(name: str, *content: str, **attributes: object) -> str:
    """`<name attribute="value">content</name>`; `content` is markup.

    `class_` is written `class`, and `data_arm` is written `data-arm`. True gives the bare attribute, None and False leave it out.
    """
    given = []
    for key, value in attributes.items():
        written = key.rstrip("_").replace("_", "-")
        if value is True:
            given.append(f" {written}")
        elif value is not None and value is not False:
            given.append(f' {written}="{text(value)}"')
    opening = f"<{name}{''.join(given)}>"
    return opening if name in VOID else f"{opening}{''.join(content)}</{name}>"


def section(identifier: str, title: str, *content: str, lead: str = "") -> str:
    """A part of the page under its own heading; `lead` says in plain words what it shows."""
    introduction = element("p", text(lead), class_="lead") if lead else ""
    return element("section", element("h2", text(title)), introduction, *content, id=identifier)


def folded(title: str, *content: str, note: str = "") -> str:
    """Content that is shown when its title is chosen."""
    small = element("span", text(note), class_="soft") if note else ""
    return element("details", element("summary", text(title), " ", small), *content)


@dataclass(frozen=True)
class Cell:
    """A table's cell: what it says, and what marks it (a CSS class)."""

    words: str
    mark: str = ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Cell]], labels: int = 1, groups: Sequence[tuple[str, int]] = ()) -> str:
    """A table whose first `labels` columns name the rows; the others are numbers, set flush right.

    `groups` stand above the columns that follow the labels: each a name, and how many columns it holds.
    """
    head = [element("th", text(name), scope="col", class_=None if index < labels else "number") for index, name in enumerate(columns)]
    above = [element("th", text(name), scope="colgroup", colspan=str(count)) for name, count in groups]
    over = element("tr", element("td", colspan=str(labels)), *above, class_="groups") if groups else ""
    starts = {labels + sum(count for _, count in groups[:place]) for place in range(len(groups))}
    body = []
    for row in rows:
        cells = [each if isinstance(each, Cell) else Cell(each) for each in row]
        body.append(
            element(
                "tr",
                *(element("th", text(cell.words), scope="row", class_=cell.mark or None) for cell in cells[:labels]),
                *(
                    element("td", text(cell.words), class_=" ".join(filter(None, ("number", "start" * (index in starts), cell.mark))))
                    for index, cell in enumerate(cells[labels:], labels)
                ),
            )
        )
    return framed(element("table", element("thead", over, element("tr", *head)), element("tbody", *body), class_="plain"))


def grid_table(grid: Grid) -> str:
    """A table of the report as HTML, with its title above and its note below."""
    note = "".join(element("p", text(line), class_="note") for line in grid.note.splitlines())
    rows = [(*row[: grid.labels], *(cell.replace("-", "−") for cell in row[grid.labels :])) for row in grid.rows]
    return element("h3", text(grid.title[:1].upper() + grid.title[1:])) + table(grid.columns, rows, grid.labels) + note


def framed(content: str) -> str:
    """Content that may be wider than the page: it is scrolled in a frame of its own."""
    return element("div", content, class_="wide", tabindex="0")
