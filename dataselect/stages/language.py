"""Name each document's language with a fastText language model: lid.176, GlotLID, or one of your own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataselect.stages.base import ModelPath
from dataselect.stages.fasttext_label import FastTextLabel


class Language(FastTextLabel):
    """The most probable language of a document and its probability, by the labels of the model.

    lid.176 has ISO codes (en), GlotLID has a script too (eng_Latn). FineWeb and DCLM keep English from 0.65
    on, CCNet any language from 0.5 on. The text is read whole, newlines as spaces.
    """

    use: ClassVar[str] = "language"

    model: ModelPath = Field(description="fastText language model, such as lid.176.ftz (fasttext.cc)")
    only: list[str] | None = Field(None, description="drop documents in another language")
    min: float | None = Field(None, description="drop documents whose language is less probable")
    as_: str = Field(
        "lang", alias="as", description="name of the language's column; `<as>_score` is the other"
    )
