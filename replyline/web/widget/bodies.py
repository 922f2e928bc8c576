"""What all bodies have in common that pages and the widget's routes send each other."""

from pydantic import BaseModel, ConfigDict, model_validator

from replyline.web.wire import few, mended


class FromPage(BaseModel):
    """A body that a page sends; a field that does not exist is an error, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_and_mended(cls, given: object) -> object:
        return mended(few(given))


class ToPage(BaseModel):
    """A body that a page gets."""

    model_config = ConfigDict(frozen=True)
