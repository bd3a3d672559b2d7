"""The `clean` section: repair, filters, deduplication, label issues, split, report."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from stages.common.params.section import Faults, Section, Share, Similarity, key, matching

if TYPE_CHECKING:
    from stages.common.text.cleaning import TextCleaning

RuleName = Literal[
    "empty_text",
    "unlabelled",
    "length",
    "language",
    "contaminated",
    "conflicting_labels",
    "exact_duplicate",
    "near_duplicate",
    "in_other_split",
    "unreadable_timestamp",
    "label_issue",
    "any",
]
PiiKind = Literal["email", "phone", "card"]
Edges = Annotated[list[float], Field(min_length=1, max_length=9)]
Language = Annotated[str, matching(r"[a-z]{2}", "must be an ISO 639-1 code of two small letters, such as en, de or zh")]


def _region(code: str) -> str:
    from phonenumbers import SUPPORTED_REGIONS

    if code not in SUPPORTED_REGIONS:
        raise ValueError("must be an ISO 3166 code of a country with phone numbers, such as US, DE or GB (not UK)")
    return code


class Length(Section):
    """Limits on a text, in characters after repair."""

    min: int = key(3, "Shorter texts are rejected (characters).", ge=1, le=10_000)
    max: int = key(10_000, "Longer texts are rejected (characters).", ge=1, le=10_000_000)

    def _faults(self) -> Faults:
        if self.min > self.max:
            yield "min", f"is greater than max ({self.max}): no text could pass"


class Languages(Section):
    """Language filter (py3langid); off unless languages are named."""

    keep: list[Language] = key([], "ISO 639-1 codes; texts in other languages are rejected. Empty: no filter.")
    min_confidence: Share = key(0.8, "A text is rejected only if another language is at least this likely.")


class Pii(Section):
    """Personal data replaced by a mark such as [EMAIL], in the texts themselves."""

    kinds: list[PiiKind] = key([], "What to mask: email, phone, card. Empty: nothing.")
    phone_region: Annotated[str, AfterValidator(_region)] | None = key(
        None, "Country whose national phone numbers count; null: only numbers with +country code."
    )


class NearDuplicates(Section):
    """MinHash search for texts that say the same with small changes."""

    enabled: bool = key(True, "Look for near-duplicates at all.")
    threshold: Similarity = key(0.8, "Jaccard similarity of shingles from which two texts match.")
    shingle_size: int = key(5, "Characters in a shingle.", ge=2, le=20)
    num_perm: int = key(128, "MinHash permutations: more find more, slower.", ge=16, le=512)


class LabelIssues(Section):
    """Rows whose label looks wrong (confident learning; Northcutt et al. 2021), found with TF-IDF and cleanlab."""

    action: Literal["off", "list", "flag", "reject"] = key(
        "list",
        "list: in data/clean/suspects.parquet and the report; flag: also as `suspect` in the rows, for "
        "slices; reject: out of train (validation and test are never thinned out).",
    )
    folds: int = key(5, "Cross-validation folds over train.", ge=2, le=20)
    min_confidence: Share = key(0.8, "A row is suspect only if another label is at least this likely.")
    max_rows: int = key(20_000, "With more rows than this, a seeded sample is looked at.", ge=100, le=10_000_000)


class Split(Section):
    """Shares of the rows that are held out; train gets the rest."""

    by: Literal["random", "time"] = key(
        "random", "random: by a hash of each group or text; time: the newest rows are test, those before validation."
    )
    validation: float = key(0.1, "Share of rows for validation.", gt=0.0, lt=1.0)
    test: float = key(0.1, "Share of rows for test.", gt=0.0, lt=1.0)
    deciles: Edges | None = key(
        None,
        "The nine numbers between the tenths of the labels (fewer, where many labels are equal), kept so that a "
        "changed one moves no other row; null: those of this run's rows.",
    )
    folds: int = key(
        0, "Number the rows outside test 0 to folds-1 (column `fold`), for cross-validation.", ge=0, le=100
    )

    def _faults(self) -> Faults:
        if self.validation + self.test > 0.8:
            yield (), f"validation + test = {self.validation + self.test:g} leaves under 20 % for training"
        if self.deciles and self.deciles != sorted(set(self.deciles)):
            yield "deciles", "must rise from each to the next: copy the line that clean printed"
        if self.folds == 1:
            yield "folds", "one fold is no cross-validation; give 2 or more, or 0 for none"


class DataReport(Section):
    """What reports/data.html shows of the texts themselves."""

    examples: int = key(10, "Texts shown per rule and list of suspects; 0: none.", ge=0, le=100)
    mask_pii: bool = key(True, "Mask e-mail addresses, phone and card numbers in them.")


class CleanParams(Section):
    """Repair, rejection, deduplication, suspects and the split."""

    normalization: Literal["NFC", "NFKC"] = key("NFC", "Unicode form; NFKC also folds full-width characters.")
    strip_html: bool = key(True, "Remove HTML tags such as <br />.")
    strip_markdown: bool = key(False, "Keep the text of Markdown, without its marks.")
    simplify_chinese: bool = key(False, "Traditional to simplified Chinese characters (OpenCC).")
    pii: Pii = key(Pii(), "Personal data to mask in the texts.")
    length: Length = key(Length(), "Limits on the length of a text.")
    languages: Languages = key(Languages(), "Languages to keep.")
    near_duplicates: NearDuplicates = key(NearDuplicates(), "Removal of near-duplicates.")
    conflict_above: float = key(
        0.0, "Labels of the same text that are further apart than this contradict; else their mean is kept.", ge=0.0
    )
    min_label_rows: int = key(3, "A label with fewer rows than this is an error.", ge=1, le=1_000_000)
    label_issues: LabelIssues = key(LabelIssues(), "Rows whose label looks wrong.")
    split: Split = key(Split(), "How rows are parted into train, validation and test.")
    stop_above: dict[RuleName, Share] = key(
        {}, "Stop when a rule rejects more than this share of the rows; `any`: all rules together."
    )
    report: DataReport = key(DataReport(), "What reports/data.html shows.")

    @property
    def text_cleaning(self) -> "TextCleaning":
        """The steps that change texts, which have to be repeated wherever the model is used."""
        from stages.common.text.cleaning import TextCleaning

        steps = self.model_dump(include={"normalization", "strip_html", "strip_markdown", "simplify_chinese"})
        return TextCleaning(**steps, pii=tuple(self.pii.kinds), phone_region=self.pii.phone_region)
