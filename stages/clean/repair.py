"""Make texts readable: broken encodings, HTML, Unicode form, control characters, white space."""

import html

import ftfy
import polars as pl

from stages.common.params import CleanParams

# A text of printable ASCII without & or < is what ftfy would return: most English texts skip the slow path.
PLAIN = r"^[ -%'-;=-~]*$"
TAG = r"</?[A-Za-z][^<>]*>"
COMMENT = r"(?s)<!--.*?-->"
INVISIBLE = "[\u00ad\u200b\u2060\ufeff]"  # soft hyphen, zero-width space, word joiner, byte-order mark
BLANKS = r"\s+"


def repair(records: pl.DataFrame, params: CleanParams) -> pl.DataFrame:
    """Return the records with `text` and `text_pair` repaired; a text with nothing left is null."""
    return records.with_columns(repaired(name, params) for name in ("text", "text_pair"))


def repaired(column: str, params: CleanParams) -> pl.Expr:
    """Return the expression that repairs one column of text."""
    raw = pl.col(column)
    fixed = pl.when(raw.str.contains(PLAIN)).then(raw).otherwise(_fix(raw, params))
    return fixed.str.replace_all(BLANKS, " ").str.strip_chars().replace("", None).alias(column)


def _fix(raw: pl.Expr, params: CleanParams) -> pl.Expr:
    def fix(text: str) -> str:
        return ftfy.fix_text(unescape(text), config)

    config = ftfy.TextFixerConfig(normalization=params.normalization, unescape_html=False)
    # Only texts outside PLAIN reach the slow function: the rest are null there.
    fixed = pl.when(~raw.str.contains(PLAIN)).then(raw).map_elements(fix, return_dtype=pl.String, skip_nulls=True)
    if params.strip_html:
        fixed = fixed.str.replace_all(COMMENT, " ").str.replace_all(TAG, " ")
    return fixed.str.replace_all(INVISIBLE, "")


def unescape(text: str) -> str:
    """Resolve HTML entities, also where they were escaped twice or three times (`&amp;amp;`)."""
    for _ in range(3):
        if "&" not in text or (once := html.unescape(text)) == text:
            break
        text = once
    return text
