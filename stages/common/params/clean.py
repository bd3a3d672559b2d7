"""The `clean` section: repair, rejection, deduplication, suspects, split, report."""

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from stages.common.params.base import Section

if TYPE_CHECKING:
    from stages.common.text_cleaning import TextCleaning

RuleName = Literal[
    "empty_text",
    "unlabelled",
    "length",
    "language",
    "contaminated",
    "conflicting_labels",
    "exact_duplicate",
    "near_duplicate",
    "unreadable_timestamp",
    "label_issue",
    "any",
]
PiiKind = Literal["email", "phone", "card"]


def _language(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2}", code):
        raise ValueError("must be an ISO 639-1 code of two small letters, such as en, de or zh")
    return code


def _region(code: str) -> str:
    from phonenumbers import SUPPORTED_REGIONS

    if code not in SUPPORTED_REGIONS:
        near = ["GB"] if code == "UK" else get_close_matches(code.upper(), sorted(SUPPORTED_REGIONS))
        raise ValueError(
            "is no country that phone numbers are known of"
            + (f"; did you mean {' or '.join(near)}?" if near else ": name an ISO 3166 code such as US, DE or CN")
        )
    return code


class Length(Section):
    """Limits on a text, in characters after repair."""

    min: int = Field(3, ge=1, le=10_000, description="Shorter texts are rejected (characters).")
    max: int = Field(10_000, ge=1, le=10_000_000, description="Longer texts are rejected (characters).")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is greater than max ({self.max}): no text could pass")
        return self


class Languages(Section):
    """Language filter (py3langid); off unless languages are named."""

    keep: list[Annotated[str, AfterValidator(_language)]] = Field(
        [], description="ISO 639-1 codes; texts in other languages are rejected. Empty: no filter."
    )
    min_confidence: float = Field(
        0.8, ge=0.0, le=1.0, description="A text is rejected only if another language is at least this likely."
    )


class Pii(Section):
    """Personal data replaced by a mark such as [EMAIL], in the texts themselves."""

    kinds: list[PiiKind] = Field([], description="What to mask: email, phone, card. Empty: nothing.")
    phone_region: Annotated[str, AfterValidator(_region)] | None = Field(
        None, description="Country whose national phone numbers count; null: only numbers with +country code."
    )


class NearDuplicates(Section):
    """MinHash search for texts that say the same with small changes."""

    enabled: bool = Field(True, description="Look for near-duplicates at all.")
    threshold: float = Field(
        0.8, ge=0.3, le=1.0, description="Jaccard similarity of shingles from which two texts match."
    )
    shingle_size: int = Field(5, ge=2, le=20, description="Characters in a shingle.")
    num_perm: int = Field(128, ge=16, le=512, description="MinHash permutations: more find more, slower.")


class LabelIssues(Section):
    """Rows whose label looks wrong (confident learning; Northcutt et al. 2021), found with TF-IDF and cleanlab."""

    action: Literal["off", "list", "flag", "reject"] = Field(
        "list",
        description="list: in data/clean/suspects.parquet and the report; flag: also as `suspect` in the rows, for "
        "slices; reject: out of train (validation and test are never thinned out).",
    )
    folds: int = Field(5, ge=2, le=20, description="Cross-validation folds over train.")
    min_confidence: float = Field(
        0.8, ge=0.0, le=1.0, description="A row is suspect only if another label is at least this likely."
    )
    max_rows: int = Field(
        20_000, ge=100, le=10_000_000, description="With more rows than this, a seeded sample is looked at."
    )


class Split(Section):
    """Shares of the rows that are held out; train gets the rest."""

    by: Literal["random", "time"] = Field(
        "random", description="random: stratified by label; time: the newest rows are test, those before validation."
    )
    validation: float = Field(0.1, gt=0.0, lt=1.0, description="Share of rows for validation.")
    test: float = Field(0.1, gt=0.0, lt=1.0, description="Share of rows for test.")
    folds: int = Field(
        0, ge=0, le=100, description="Number the rows outside test 0 to folds-1 (column `fold`), for cross-validation."
    )

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.validation + self.test > 0.8:
            raise ValueError(f"validation + test = {self.validation + self.test:g} leaves under 20 % for training")
        if self.folds == 1:
            raise ValueError("folds: one fold is no cross-validation; give 2 or more, or 0 for none")
        return self


class DataReport(Section):
    """What reports/data.html shows of the texts themselves."""

    examples: int = Field(10, ge=0, le=100, description="Texts shown per rule and list of suspects; 0: none.")
    mask_pii: bool = Field(True, description="Mask e-mail addresses, phone and card numbers in them.")


class CleanParams(Section):
    """Repair, rejection, deduplication, suspects and the split."""

    normalization: Literal["NFC", "NFKC"] = Field(
        "NFC", description="Unicode form; NFKC also folds full-width characters."
    )
    strip_html: bool = Field(True, description="Remove HTML tags such as <br />.")
    strip_markdown: bool = Field(False, description="Keep the text of Markdown, without its marks.")
    simplify_chinese: bool = Field(False, description="Traditional to simplified Chinese characters (OpenCC).")
    pii: Pii = Field(Pii(), description="Personal data to mask in the texts.")
    length: Length = Field(Length(), description="Limits on the length of a text.")
    languages: Languages = Field(Languages(), description="Languages to keep.")
    near_duplicates: NearDuplicates = Field(NearDuplicates(), description="Removal of near-duplicates.")
    label_issues: LabelIssues = Field(LabelIssues(), description="Rows whose label looks wrong.")
    split: Split = Field(Split(), description="How rows are parted into train, validation and test.")
    stop_above: dict[RuleName, Annotated[float, Field(ge=0.0, le=1.0)]] = Field(
        {},
        description="Stop when a rule rejects more than this share of the rows; `any`: all rules together.",
    )
    report: DataReport = Field(DataReport(), description="What reports/data.html shows.")

    @property
    def text_cleaning(self) -> "TextCleaning":
        """What of this is done to texts, and has to be done wherever the model is asked."""
        from stages.common.text_cleaning import TextCleaning

        return TextCleaning(
            normalization=self.normalization,
            strip_html=self.strip_html,
            strip_markdown=self.strip_markdown,
            simplify_chinese=self.simplify_chinese,
            pii=tuple(self.pii.kinds),
            phone_region=self.pii.phone_region,
        )
