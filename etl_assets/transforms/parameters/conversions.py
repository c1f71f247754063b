"""Steps that read a value out of text, by what was declared and never by guessing."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from etl_assets.transforms.parameters.base import (
    ON_ERROR,
    ON_ERROR_OF_TEXT,
    Column,
    Conversion,
    OnError,
    OnErrorOfText,
    Parameters,
    TypeName,
    step,
)

_DIRECTIVE = re.compile(r"%(?:-[dHIjmMSy]|[aAbBcdfgHIjmMnpSuwxXyYzZ%])")


@step("number", "values:number", 'number: {column: price, decimal: ",", thousands: ".", symbols: ["€"]}')
class Number(Conversion):
    """Read a number written with the declared signs; `(5)`, `-5` and `5-` are negative. Never rounds."""

    accepts: ClassVar[Literal["text", "number", "any"]] = "any"
    decimal: Literal[".", ","] = Field(default=".", description="The decimal sign.")
    thousands: Literal[",", ".", " ", "'", ""] = Field(default="", description='The sign between thousands; "": none.')
    symbols: tuple[str, ...] = Field(default=(), description="Currency signs that may stand before or after.")
    type: TypeName = Field(default="decimal(38,9)", description="Type of the result.", validate_default=True)
    on_error: OnError = Field(default="reject", description=ON_ERROR)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        grouped = f" and {self.thousands!r} between thousands" if self.thousands else ""
        return f"is not a number of type {self.type} with decimal sign {self.decimal!r}{grouped}"

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError(f"the decimal sign and the thousands sign are both {self.decimal!r}")
        if not self.type.startswith(("int", "float", "decimal")):
            raise ValueError(f"{self.type} is not a type of numbers")
        return self


@step("boolean", "values:boolean", "boolean: {column: is_active, true_values: [ja], false_values: [nein]}")
class Boolean(Conversion):
    """Read true and false; case and white space around do not matter."""

    accepts: ClassVar[Literal["text", "number", "any"]] = "any"
    true_values: tuple[str, ...] = Field(default=("true", "t", "yes", "y", "on", "1"), description="Words for true.")
    false_values: tuple[str, ...] = Field(default=("false", "f", "no", "n", "off", "0"), description="Words for false.")
    on_error: OnError = Field(default="reject", description=ON_ERROR)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return "is neither true nor false"

    @field_validator("true_values", "false_values", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(item, bool) for item in value):
            raise ValueError('YAML reads yes, no, on and off as booleans: put them in quotes ("yes")')
        return value

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        both = {word.strip().lower() for word in self.true_values} & {
            word.strip().lower() for word in self.false_values
        }
        if both:
            raise ValueError(f"both true and false: {', '.join(sorted(both))}")
        return self


@step("date", "values:date", 'date: {column: born, formats: ["%d.%m.%Y", "%Y-%m-%d"]}')
class Date(Conversion):
    """Read a date in one of the declared formats; text that two formats read differently is a failure."""

    accepts: ClassVar[Literal["text", "number", "any"]] = "any"
    formats: tuple[str, ...] = Field(description="strptime formats, for example %Y-%m-%d.", min_length=1)
    type: Literal["date", "timestamp", "timestamptz"] = Field(default="date", description="Type of the result.")
    on_error: OnError = Field(default="reject", description=ON_ERROR)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return f"is no {self.type} in {'one of ' if len(self.formats) > 1 else ''}{', '.join(self.formats)}"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for written in self.formats:
            if "%" not in written:
                raise ValueError(f"{written!r} is not a strptime format")
            _, percent, unknown = _DIRECTIVE.sub("", written).partition("%")
            if percent:
                raise ValueError(f"{written!r}: %{unknown[:1]} is not a strptime directive")
            zoned = "%z" in written or "%Z" in written
            if zoned != (self.type == "timestamptz"):
                raise ValueError(f"{written!r}: a zone (%z) goes with type timestamptz, and with no other")
        return self


@step("cast", "values:cast", 'cast: {quantity: int64, total: "decimal(12,2)"}')
class Cast(Parameters):
    """Change types. Text that is blank becomes NULL; a whole number must be whole; decimals round as SQL does."""

    main: ClassVar[str | None] = "columns"
    main_is_mapping: ClassVar[bool] = True

    columns: dict[Column, TypeName] = Field(description="Column -> type.", min_length=1)
    on_error: OnError = Field(default="reject", description=ON_ERROR)


@step("phone", "phone:phone", "phone: {column: phone, region: US}")
class Phone(Conversion):
    """Write phone numbers as E.164, `+442079460958`; an extension as RFC 3966 has it, `;ext=123`."""

    region: str | None = Field(
        default=None, description="ISO country of numbers written without + or 00.", pattern="^[A-Z]{2}$"
    )
    on_error: OnErrorOfText = Field(default="keep", description=ON_ERROR_OF_TEXT)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return "is no phone number" + (
            f" of region {self.region} or with + in front" if self.region else " with + in front"
        )

    @field_validator("region")
    @classmethod
    def _known_region(cls, region: str | None) -> str | None:
        if region is not None:
            import phonenumbers

            if region not in phonenumbers.SUPPORTED_REGIONS:
                raise ValueError(f"{region} is no region of phone numbers; use the ISO 3166 code, for example GB")
        return region


@step("email", "contact:email", "email: [email]")
class Email(Conversion):
    """Trim and lower the case of e-mail addresses; `mailto:` goes."""

    on_error: OnErrorOfText = Field(default="keep", description=ON_ERROR_OF_TEXT)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return "is no e-mail address"


@step("country", "contact:country", "country: {column: country, also: {GB: [UK, England]}}")
class Country(Conversion):
    """Write countries as ISO 3166 codes, read from codes and English names."""

    to: Literal["alpha_2", "alpha_3", "numeric", "name"] = Field(default="alpha_2", description="What to write.")
    also: dict[str, tuple[str, ...]] = Field(default={}, description="Alpha-2 code -> other spellings.")
    on_error: OnErrorOfText = Field(default="reject", description=ON_ERROR_OF_TEXT)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return "is no country of ISO 3166"


@step("currency", "contact:currency", 'currency: {column: currency, also: {EUR: ["€"]}}')
class Currency(Conversion):
    """Write currencies as ISO 4217 codes, read from codes, numbers and English names."""

    also: dict[str, tuple[str, ...]] = Field(default={}, description="Code -> other spellings.")
    on_error: OnErrorOfText = Field(default="reject", description=ON_ERROR_OF_TEXT)

    def reason(self) -> str:
        """Return what is wrong with a value that does not convert."""
        return "is no currency of ISO 4217"
