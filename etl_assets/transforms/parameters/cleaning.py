"""Steps that clean text in place."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from etl_assets.transforms.parameters.base import Cleaning, Columns, Conversion, OnErrorOfText, step

_NULL_TOKENS = ("", "-", "--", "N/A", "n/a", "#N/A", "NULL", "null", "(null)", "\\N", "NaN", "nan")


@step("trim", "text:trim", "trim: [first_name, last_name]")
class Trim(Cleaning):
    """Remove white space, Unicode's included, from both ends."""


@step("collapse_whitespace", "text:collapse_whitespace", "collapse_whitespace: [address]")
class CollapseWhitespace(Cleaning):
    """Make every run of white space one space."""


@step("lower", "text:lower", "lower: [email]")
class Lower(Cleaning):
    """Lower case."""


@step("upper", "text:upper", "upper: [state]")
class Upper(Cleaning):
    """Upper case."""


@step("title", "title:title", "title: {columns: [last_name], keep: [IBM]}")
class Title(Cleaning):
    """Capitalise words that are all lower or all upper case; McDonald, van der Berg and Roman numerals stay."""

    keep: tuple[str, ...] = Field(default=(), description="Words that stay exactly so, for example acronyms.")


@step("nfc", "text:nfc", "nfc: [name]")
class Nfc(Cleaning):
    """Compose Unicode to form NFC, so that equal looking text is equal."""


@step("strip_control", "text:strip_control", "strip_control: [comment]")
class StripControl(Cleaning):
    """Remove control characters (not tab and line ends), zero-width characters and direction marks.

    Joiners between characters beyond ASCII stay: emoji, Persian and Indic scripts need them.
    """


@step("strip_html", "html:strip_html", "strip_html: [description]")
class StripHtml(Cleaning):
    """Remove tags, comments and scripts; decode common entities, except where that would make a tag again."""


@step("null_tokens", "text:null_tokens", 'null_tokens: {columns: [phone], tokens: ["?", unknown]}')
class NullTokens(Cleaning):
    """Make words that mean "nothing here" NULL; white space around them is ignored."""

    tokens: tuple[str, ...] = Field(default=_NULL_TOKENS, description="The words, in exactly this case.", min_length=1)


@step("synonyms", "text:synonyms", "synonyms: {column: segment, values: {VIP: [V.I.P., VVIP]}}")
class Synonyms(Conversion):
    """Replace each known spelling by the word it stands for; white space around it is ignored."""

    main: ClassVar[str | None] = None

    columns: Columns = Field(description="Columns to work on; `column: x` for one.")
    values: dict[str, tuple[str, ...]] = Field(description="Word -> its other spellings.", min_length=1)
    ignore_case: bool = Field(default=True, description="Whether STD, Std and std are one spelling.")
    on_error: OnErrorOfText = Field(default="keep", description="What a word that is not listed becomes.")

    def spellings(self) -> dict[str, str]:
        """Return spelling (lower case where case is ignored) -> word."""
        found: dict[str, str] = {}
        for word, others in self.values.items():
            for spelling in (word, *others):
                found.setdefault(self._fold(spelling), word)
        return found

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return "is not one of the listed words"

    def _fold(self, spelling: str) -> str:
        spelling = spelling.strip()
        return spelling.lower() if self.ignore_case else spelling

    @model_validator(mode="after")
    def _one_word_per_spelling(self) -> Self:
        known = self.spellings()
        for word, others in self.values.items():
            for spelling in (word, *others):
                if known[self._fold(spelling)] != word:
                    raise ValueError(f"{spelling!r} stands for both {known[self._fold(spelling)]!r} and {word!r}")
        return self
