"""Rules that keep rows out: each gives the reason why a row goes, null where it stays.

No rule looks at the order of the rows: where one of several rows stays, it is the one of the official split of the
highest priority (test before validation before train, so that an official test set stays whole), then of the smallest
id.
"""

from functools import cache, partial
from typing import Any

import polars as pl

from stages.clean.split import read_times
from stages.common.errors import AttuneError
from stages.common.params.clean import CleanParams, Languages, NearDuplicates, RuleName
from stages.common.pipeline.validation import Rule
from stages.common.text.columns import UNSPACED, same_text_key, whole_text
from stages.common.text.near_duplicates import deduplicate, nearest_among
from stages.tasks.base import Task

PRIORITY = pl.col("split").replace_strict({"test": 0, "validation": 1, "train": 2}, default=3, return_dtype=pl.Int8)
CONTRARY = ", which has another label: "
LISTED = 5  # labels named in a reason
BATCH = 100_000  # texts hashed or classified at once
KEY = ("high", "low")  # 128 bits: no two texts share them

# What the language classifier distinguishes and ISO 639-1 does not: Cantonese and Wu, Egyptian and Moroccan Arabic.
PART_OF = {"yue": "zh", "wuu": "zh", "arz": "ar", "ary": "ar", "nn": "no", "nb": "no"}
NO_LANGUAGE = "zxx"
ENOUGH = 2_000  # characters: more of a text make its language no clearer
FEW = 4  # with fewer distinct words, "haha haha haha" is surely Sesotho
WORD = rf"{UNSPACED}|[\p{{L}}\p{{M}}]+"  # in scripts without blanks, each character counts


def rules(params: CleanParams, against: pl.DataFrame, task: Task) -> dict[str, Rule]:
    """Return the rules that are on by name, in the order they are applied, for records that have a text.

    The texts that no row may equal or nearly equal, `against`, are cleaned as the records are (schema Decontamination).
    """
    unlabelled = pl.when(pl.col("label").fill_null("") == "").then(pl.lit("there is no label"))
    shortest, longest, characters = params.length.min, params.length.max, pl.col("text").str.len_chars()
    length = pl.when(~characters.is_between(shortest, longest)).then(
        pl.format(f"{{}} characters, outside {shortest} to {longest}", characters)
    )
    near = params.near_duplicates
    in_order: list[tuple[RuleName, Rule, bool]] = [
        ("unlabelled", lambda _: unlabelled, True),
        ("length", lambda _: length, True),
        ("language", partial(other_language, languages=params.languages), bool(params.languages.keep)),
        ("unreadable_timestamp", unreadable_timestamp, params.split.by == "time"),
        ("conflicting_labels", partial(conflicting_labels, task=task, params=params), not task.several_targets),
        ("exact_duplicate", partial(exact_duplicate, task=task), True),
        ("contaminated", partial(contaminated, against=against, near=near), not against.is_empty()),
        ("near_duplicate", partial(near_duplicate, task=task, params=params), near.enabled),
        ("in_other_split", in_other_split, task.several_targets),
    ]
    return {name: rule for name, rule, enabled in in_order if enabled}


def other_language(records: pl.DataFrame, languages: Languages) -> pl.Series:
    """The text is surely in another language; unsure ones and those of fewer than four words stay.

    py3langid (Lui & Baldwin 2012, "langid.py: An off-the-shelf language identification tool") finds what lingua finds
    on the default data, with a wheel of 5 MB instead of 96, a tenth of the memory and many times the speed. Its
    probabilities are tempered by the length of a text, so that a short one is hardly ever sure. Both texts of a pair
    are classified as one. An AttuneError if the classifier does not know a language that is to be kept.
    """
    keep = {PART_OF.get(code, code) for code in languages.keep}
    known = {PART_OF.get(code, code) for code in _classifier().labels} - {NO_LANGUAGE}
    if unknown := sorted(keep - known):
        what = f"clean.languages.keep names {unknown[0]!r}, a language that the classifier does not know"
        raise AttuneError(what, f"it knows {', '.join(sorted(code for code in known if len(code) == 2))}")
    reasons: list[str | None] = []
    for batch in records.iter_slices(BATCH):
        texts = whole_text(batch).str.slice(0, ENOUGH)
        clear = texts.str.to_lowercase().str.extract_all(WORD).list.n_unique() >= FEW
        for text in texts.set(~clear, None):
            language, probability = _classifier().classify(text) if text else (NO_LANGUAGE, 0.0)
            language = PART_OF.get(language, language)
            other = language not in keep and language != NO_LANGUAGE and probability >= languages.min_confidence
            reasons.append(f"the language is {language} (probability {probability:.2f})" if other else None)
    return pl.Series(reasons, dtype=pl.String)


@cache
def _classifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def unreadable_timestamp(records: pl.DataFrame) -> pl.Series:
    """The time is missing or cannot be read; a row with an official split needs none."""
    out = read_times(records["timestamp"])["time"].is_null() & records["split"].is_null()
    missing = pl.col("timestamp").str.strip_chars().fill_null("") == ""
    unread = pl.format("the timestamp {} is neither ISO 8601 nor Unix time", pl.col("timestamp").str.slice(0, 40))
    reason = pl.when(missing).then(pl.lit("there is no timestamp")).otherwise(unread)
    return records.select(pl.when(out).then(reason)).to_series()


def merged_targets(records: pl.DataFrame, task: Task, params: CleanParams) -> tuple[pl.DataFrame, int]:
    """Return the records with one target for equal texts whose targets the task can merge, and in how many rows."""
    merged = _several_labels(records, task, params).drop_nulls("target")
    return records.with_columns(records["label"].scatter(merged["row"], merged["target"])), merged.height


def conflicting_labels(records: pl.DataFrame, task: Task, params: CleanParams) -> pl.Series:
    """The same text stands under several labels: nobody knows which is right, so none stays."""
    rows = _several_labels(records, task, params).filter(pl.col("target").is_null())
    heads = pl.col("labels").list.eval(pl.element().str.head(40).unique().sort()).list.head(LISTED).list.join(", ")
    more = pl.when(pl.col("labels").list.len() > LISTED).then(pl.lit(", …")).otherwise(pl.lit(""))
    return _reasons(records, rows["row"], rows.select(pl.format("the same text has the labels {}", heads + more)))


def _several_labels(records: pl.DataFrame, task: Task, params: CleanParams) -> pl.DataFrame:
    """Return row (a position), labels and target (null: they contradict) where a text stands under several labels."""
    hashes = _text_hashes(records).with_columns(rank=records["label"].rank("dense"))
    several = hashes.select(pl.col("rank").min().over(KEY) != pl.col("rank").max().over(KEY)).to_series().arg_true()
    rows = hashes[several].with_columns(row=several, label=records["label"].gather(several))
    groups = rows.group_by(KEY).agg(labels=pl.col("label").unique().sort())
    targets = [task.merged(labels.to_list(), params) for labels in groups["labels"]]
    groups = groups.with_columns(target=pl.Series(targets, dtype=pl.String))
    return rows.join(groups, on=KEY, how="left", maintain_order="left").select("row", "labels", "target")


def exact_duplicate(records: pl.DataFrame, task: Task) -> pl.Series:
    """The same text (without regard to case) as another row; one of them stays."""
    order = _precedence(records)
    rank = order.arg_sort()
    first = (
        _text_hashes(with_targets(records, task))
        .with_columns(rank=rank)
        .select(pl.col("rank").min().over(KEY))
        .to_series()
    )
    out = (first != rank).arg_true()
    stays = records["id"].gather(order.gather(first.gather(out)))
    return _reasons(records, out, pl.select(pl.format("the same text as {}", stays)))


def contaminated(records: pl.DataFrame, against: pl.DataFrame, near: NearDuplicates) -> pl.Series:
    """The text equals (without regard to case) or nearly equals one of a benchmark or test set of the user's own.

    The two texts of a pair count as one text, one line after the other. Without `near`, only equal texts count.
    """
    known = against.group_by(pl.col("text").str.to_lowercase()).agg(pl.col("source").min())
    known = known.sort("text")  # so that neither match nor reason depends on the order of the rows
    texts = whole_text(records)
    keys = texts.str.replace_all("\n", " ", literal=True).str.to_lowercase().to_frame("text")
    same = keys.join(known, on="text", how="left", maintain_order="left")
    reasons = same.select(pl.format("the same text as one of {}", "source")).to_series()
    if near.enabled:
        others = reasons.is_null().arg_true()
        position, similarity = nearest_among(
            texts.gather(others), known["text"], near.threshold, near.shingle_size, near.num_perm
        )
        out = position >= 0
        source, score = known["source"].gather(position[out]), pl.Series(similarity[out]).round(2)
        reason = pl.format("nearly the same text as one of {} (similarity {})", source, score)
        reasons = reasons.scatter(others.filter(pl.Series(out)), pl.select(reason).to_series())
    return reasons


def near_duplicate(records: pl.DataFrame, task: Task, params: CleanParams) -> pl.Series:
    """Nearly the same text as a row that stays, so that no two kept rows nearly equal each other."""
    order, near = _precedence(records), params.near_duplicates
    duplicate_of, similarity = deduplicate(
        whole_text(with_targets(records, task)).gather(order), near.threshold, near.shingle_size, near.num_perm
    )
    duplicate = duplicate_of >= 0
    out = order.filter(pl.Series(duplicate, dtype=pl.Boolean))
    stays = records.select("id", "label")[order.gather(duplicate_of[duplicate])]
    reason = pl.format("near-duplicate of {} (similarity {})", "id", pl.Series(similarity[duplicate]).round(2))
    pairs = zip(records["label"].gather(out), stays["label"], strict=True)
    contrary = [
        not task.several_targets and own != other and task.merged([own, other], params) is None for own, other in pairs
    ]
    other = pl.when(pl.Series(contrary, dtype=pl.Boolean)).then(pl.lit(CONTRARY) + pl.col("label"))
    return _reasons(records, out, stays.select(reason + other.fill_null("")))


def in_other_split(records: pl.DataFrame) -> pl.Series:
    """What is asked is asked in an official split that comes before the row's own: test, validation, train."""
    out = pl.col("split").is_not_null() & (PRIORITY.min().over("asks") < PRIORITY)
    reason = pl.lit("nearly the same is asked in an official test or validation")
    return records.select(pl.when(out).then(reason)).to_series()


def with_targets(records: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Return records whose text pair is what the target says, if rows with other targets are other rows."""
    return records.with_columns(text_pair=task.said(records["label"])) if task.several_targets else records


def _precedence(records: pl.DataFrame) -> pl.Series:
    """Return the positions of the rows in the order in which they stay when one of several has to go."""
    return records.select(pl.arg_sort_by(PRIORITY, "id")).to_series()


def _text_hashes(records: pl.DataFrame) -> pl.DataFrame:
    """Return two hashes of each row's text without regard to case; in batches, as what is hashed is text as well."""
    hashes = [same_text_key().hash(seed).alias(name) for seed, name in enumerate(KEY)]
    return pl.concat([part.select(hashes) for part in (records.clear(), *records.iter_slices(BATCH))])


def _reasons(records: pl.DataFrame, index: pl.Series, reasons: pl.DataFrame) -> pl.Series:
    """Return the reasons at these positions, null at all others."""
    stays = pl.Series([None], dtype=pl.String).new_from_index(0, records.height)
    return stays.scatter(index, reasons.to_series())
