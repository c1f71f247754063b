"""Text out of HTML. Not a parser: what looks like a tag goes, and what is left never looks like one again."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.parameters import Parameters
from etl_assets.transforms.projection import Staged

_BEFORE = r"(?:<[/!?]?)*"
"""Half tags before a tag go with it, or the removal would join them with what follows into a new tag."""
_BLOCK = (
    rf"(?i){_BEFORE}</?(?:address|article|blockquote|br|dd|div|dl|dt|footer|h[1-6]|header|hr|li|ol|p|pre|section|"
    r"table|tbody|td|tfoot|th|thead|tr|ul)(?:[\s/][^>]*)?>"
)
_ANY = (
    rf"(?is){_BEFORE}(?:<!--.*?-->|<script\b[^>]*>.*?</script[^>]*>|<style\b[^>]*>.*?</style[^>]*>"
    r"|<(?:/?[a-z]|[!?])[^>]*>)"
)
_HARMLESS = {"&nbsp;": " ", "&#160;": " ", "&quot;": '"', "&#34;": '"', "&apos;": "'", "&#39;": "'"}
_SHIELD = "<a>"
"""Stands in for an ampersand that must stay written out; no tag is left in the text by then."""


def strip_html(text: ir.StringValue, _: Parameters) -> Staged:
    """Remove tags; decode entities, except where the result would be a tag or an entity again."""
    [text] = yield [text.re_replace(_ANY_INVISIBLE, "").re_replace(_BLOCK, " ").re_replace(_ANY, "")]
    for written, character in _HARMLESS.items():
        text = text.replace(written, character)
    text = text.re_replace(r"&amp;([a-zA-Z#][a-zA-Z0-9]*;)", rf"{_SHIELD}\1").replace("&amp;", "&")
    [text] = yield [text.replace(_SHIELD, "&amp;")]
    opened = text.re_search(r"<[a-zA-Z/!?]")  # a ">" more would close it, and make it a tag
    text = ibis.cases((opened, text), else_=text.replace("&gt;", ">"))
    return fn.trim(text.re_replace(r"&lt;($|[^a-zA-Z/!?&<])", r"<\1"))


_ANY_INVISIBLE = rf"(?is){_BEFORE}(?:<!--.*?-->|<script\b[^>]*>.*?</script[^>]*>|<style\b[^>]*>.*?</style[^>]*>)"
