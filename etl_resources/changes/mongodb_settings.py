"""Settings of `capture: {log: ...}` of a MongoDB stream."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from etl_resources.source import LogCapture


class MongoLogCapture(LogCapture):
    """Follow the change streams of the database.

    What an update's document is: `required` and `whenAvailable` give the document as that update left it, from the
    post-images that the collection keeps (`changeStreamPreAndPostImages`); `updateLookup` the document as it is when
    the event is read, which may be a later one.
    """

    full_document: Literal["required", "whenAvailable", "updateLookup"] = Field(
        default="required",
        description="required: exact, from post-images; whenAvailable: exact, and an update whose post-image has"
        " expired goes to the errors; updateLookup: needs no post-images, but may show a state of a later moment.",
    )
    before_images: Literal["off", "whenAvailable", "required"] = Field(
        default="off", description="Whether `_before` has the document before the change, from its pre-image."
    )
    id_column: str = Field(
        default="id",
        description="Column that `_id` becomes, and the key: silver takes no name that begins with `_`.",
    )
    chunk: int = Field(default=50_000, ge=1, description="Documents of a first load between two commits.")
