"""A strict reader of our pages: what a validator and an accessibility checker would say first."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "input", "br"}
PHRASING_ONLY = {"p", "h1", "h2", "h3", "h4", "span", "caption", "label", "legend", "dt", "button", "b", "i", "code"}
BLOCKS = {"div", "p", "ul", "ol", "dl", "table", "section", "article", "figure", "h1", "h2", "h3", "fieldset", "pre"}
CELLS = {"dt", "dd", "td", "th", "li", "tr", "caption"}
LOADS = {"src", "href", "xlink:href", "data", "action", "formaction", "poster", "srcset", "background"}


@dataclass
class Element:
    """One element with its attributes and the text directly in it and below."""

    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    text: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


class Page(HTMLParser):
    """Parse a page; ``problems`` lists what is not well formed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.problems: list[str] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        self.problems += [f"<{one.tag}> is never closed" for one in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs, closed=tag in VOID)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._start(tag, attrs, closed=True)

    def _start(self, tag: str, attrs: list[tuple[str, str | None]], *, closed: bool) -> None:
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> has an attribute twice: {names}")
        above = tuple(one.tag for one in self._open)
        if tag in BLOCKS and (outer := PHRASING_ONLY.intersection(above)):
            self.problems.append(f"<{tag}> inside {sorted(outer)}")
        element = Element(tag, {name: value or "" for name, value in attrs}, above)
        self.elements.append(element)
        if not closed:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1].tag != tag:
            self.problems.append(f"</{tag}> closes <{self._open[-1].tag if self._open else 'nothing'}>")
            return
        self._open.pop()
        if tag in BLOCKS or tag in CELLS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text.append(data)

    def all(self, *tags: str) -> list[Element]:
        return [one for one in self.elements if one.tag in tags]

    def one(self, tag: str) -> Element:
        (found,) = self.all(tag)
        return found

    def with_class(self, name: str) -> list[Element]:
        return [one for one in self.elements if name in one.attributes.get("class", "").split()]

    @property
    def ids(self) -> list[str]:
        return [one.attributes["id"] for one in self.elements if "id" in one.attributes]

    @property
    def loads(self) -> list[tuple[str, str, str]]:
        """(tag, attribute, address) of everything that a browser would fetch or follow."""
        return [(e.tag, k, v) for e in self.elements for k, v in e.attributes.items() if k in LOADS]
