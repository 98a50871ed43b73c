"""Define the description of a call and of a list that comes in pages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

from offkey.archive_file import ArchiveFile

Answer = TypeVar("Answer")
Page = TypeVar("Page", bound=BaseModel)
Item = TypeVar("Item")

Method = Literal["GET", "POST", "PUT", "DELETE"]
Params = Mapping[str, str | int]


@dataclass(frozen=True)
class Request(Generic[Answer]):
    """One call of the API.

    Attributes:
        method: HTTP method.
        path: address below that of the service.
        read: function from the body of the response to the answer. It raises ValueError if the body is another one.
        params: query parameters.
        json: JSON body.
        clips: names and contents of the clips in the form.
        archive: zip archive as the body.
        headers: headers for this call only.
        is_idempotent: whether sending the request twice has the effect and the answer of sending it once.
    """

    method: Method
    path: str
    read: Callable[[bytes], Answer]
    params: Params = field(default_factory=dict)
    json: BaseModel | None = None
    clips: Sequence[tuple[str, bytes]] = ()
    archive: ArchiveFile | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_idempotent: bool = True


@dataclass(frozen=True)
class Listing(Generic[Page, Item]):
    """A list that the service returns in pages.

    Attributes:
        first: request for the first page.
        items: function from a page to its entries.
        cursor: query parameter that selects a later page. A page has its value as `next_<cursor>`.
    """

    first: Request[Page]
    items: Callable[[Page], Sequence[Item]]
    cursor: Literal["after", "before"] = "after"

    def next(self, page: Page) -> Request[Page] | None:
        """Return the request for the page after `page`. None after the last page."""
        value: str | int | None = getattr(page, f"next_{self.cursor}")
        return None if value is None else replace(self.first, params={**self.first.params, self.cursor: value})


def read_nothing(_: bytes) -> None:
    """Accept a response without a body."""
