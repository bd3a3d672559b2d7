"""params.yaml: whatever is wrong in it is said with file, line, key and what to write instead."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from stages.common.errors import AttuneError
from stages.common.params import Params, check_params, load_params
from stages.common.params.__main__ import json_schema, main

ROOT = Path(__file__).resolve().parents[2]

MINIMAL = """\
task: text-classification
seed: 7
ingest:
  sources:
    - path: data/inbox/reviews.csv
      columns: {text: body, label: stars}
  base_model:
    scratch: {max_position_embeddings: 64}
clean:
  length: {min: 3, max: 100}
tokenize:
  max_length: 32
finetune:
  learning_rate: 1e-4
evaluate:
  slices: {columns: [source]}
register:
  model_name: reviews
"""


def load(folder: Path, text: str = MINIMAL) -> Params:
    file = folder / "params.yaml"
    file.write_text(text, encoding="utf-8")
    return load_params(file)


def fault_of(folder: Path, old: str, new: str) -> str:
    """The message about the minimal file with one thing changed."""
    assert MINIMAL.count(old) == 1, f"{old!r} must stand once in the file"
    with pytest.raises(AttuneError) as raised:
        load(folder, MINIMAL.replace(old, new))
    return str(raised.value)


def test_the_minimal_file_is_valid_and_has_defaults_for_the_rest(tmp_path: Path) -> None:
    params = load(tmp_path)
    assert params.seed == 7
    assert params.clean.near_duplicates.threshold == 0.8
    assert params.section("register") is params.register_


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "likely"),
    [
        ("learning_rate: 1e-4", "learning_rat: 1e-4", 14, "finetune.learning_rat", "learning_rate"),
        ("tokenize:", "tokenise:", 11, "tokenise", "tokenize"),
        ("{min: 3, max: 100}", "{min: 3, maximum: 100}", 10, "clean.length.maximum", "max"),
        ("columns: {text: body,", "colums: {text: body,", 6, "ingest.sources.0.colums", "columns"),
        ("{text: body, label", "{txt: body, label", 6, "ingest.sources.0.columns.txt", "text"),
        ("scratch: {max", "scrach: {max", 8, "ingest.base_model.scrach", "scratch"),
        (
            "{max_position_embeddings",
            "{max_positions",
            8,
            "ingest.base_model.scratch.max_positions",
            "max_position_embeddings",
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_likely_spelling(
    tmp_path: Path, old: str, new: str, line: int, key: str, likely: str
) -> None:
    message = fault_of(tmp_path, old, new)
    assert f"params.yaml:{line}: {key}: unknown key; did you mean {likely!r}?" in message


def test_a_key_that_resembles_nothing_is_answered_with_the_keys_known_there(tmp_path: Path) -> None:
    message = fault_of(tmp_path, "  max_length: 32", "  zzz: 32")
    assert "params.yaml:12: tokenize.zzz: unknown key; known here: max_length" in message
    message = fault_of(tmp_path, "columns: {text", "zzz: {text")
    assert "known here: path, url, hub, revision, sql, query, wheel, package, member" in message


@pytest.mark.parametrize("value", ["'7'", "seven", "7.5", "true", "null", "[7]"])
def test_a_wrong_type_is_an_error_and_never_converted(tmp_path: Path, value: str) -> None:
    assert "params.yaml:2: seed: " in fault_of(tmp_path, "seed: 7", f"seed: {value}")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("seed: 7", "seed: -1", "params.yaml:2: seed: "),
        ("learning_rate: 1e-4", "learning_rate: 0", "params.yaml:14: finetune.learning_rate: "),
        ("learning_rate: 1e-4", "learning_rate: .nan", "params.yaml:14: finetune.learning_rate: "),
        ("max_length: 32", "max_length: 3", "params.yaml:12: tokenize.max_length: "),
        ("{min: 3,", "{min: 0,", "params.yaml:10: clean.length.min: "),
        ("model_name: reviews", "model_name: ''", "params.yaml:18: register.model_name: "),
    ],
)
def test_a_value_out_of_range_is_an_error_that_shows_the_limit(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert place in fault_of(tmp_path, old, new)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = MINIMAL.replace("seed: 7", "sed: 7").replace("max_length: 32", "max_length: many")
    with pytest.raises(AttuneError) as raised:
        load(tmp_path, text)
    assert "params.yaml has 2 faults" in str(raised.value)
    assert "params.yaml:2: sed: unknown key; did you mean 'seed'?" in str(raised.value)
    assert "params.yaml:12: tokenize.max_length: " in str(raised.value)


def test_a_missing_key_is_named_with_the_line_of_its_section(tmp_path: Path) -> None:
    message = fault_of(tmp_path, "  model_name: reviews", "  fail_on_gate: true")
    assert "params.yaml:17: register.model_name: this key is required" in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{min: 3, max: 100}", "{min: 30, max: 10}", "params.yaml:10: clean.length: min (30) is greater than max (10)"),
        (
            "  length: {min: 3, max: 100}",
            "  split: {validation: 0.5, test: 0.4}",
            "params.yaml:10: clean.split: validation + test = 0.9 leaves under 20 % for training",
        ),
        ("max_length: 32", "max_length: 65", "params.yaml:12: tokenize.max_length (65) is over the scratch model's"),
        (
            "{max_position_embeddings: 64}",
            "{hidden_size: 10, num_attention_heads: 4}",
            "params.yaml:8: ingest.base_model.scratch: hidden_size must be a multiple of num_attention_heads",
        ),
        (
            "columns: [source]",
            "columns: [mood]",
            "params.yaml:16: evaluate.slices.columns names 'mood', which the records do not have",
        ),
        (
            "slices: {columns: [source]}\nregister:\n",
            "baselines: [majority]\nregister:\n  gates: {beat_baselines: [tfidf]}\n",
            "params.yaml:18: register.gates.beat_baselines names 'tfidf', which evaluate.baselines does not score",
        ),
        (
            "label: stars}",
            "label: stars}\n      label: good",
            "params.yaml:5: ingest.sources.0: label and columns.label contradict each other",
        ),
        ("{text: body, label: stars}", "{text: body}", "ingest.sources.0: needs columns.label (a column) or label"),
        ("{text: body, label: stars}", "{label: stars}", "ingest.sources.0: needs columns.text"),
        ("reviews.csv", "reviews.txt", "ingest.sources.0: plain lines have no columns"),
        ("reviews.csv", "reviews.xlsx", "ingest.sources.0: cannot tell the format of 'reviews.xlsx'"),
        ("reviews.csv", "reviews.csv\n      member: a.csv", "ingest.sources.0: path takes no member: it is no archive"),
        ("path: data/inbox/reviews.csv", "wheel: a==1", "ingest.sources.0: wheel needs a member"),
        ("path: data/inbox/reviews.csv", "package: a", "ingest.sources.0: package needs a member"),
        (
            "path: data/inbox/reviews.csv",
            "format: csv",
            "needs exactly one of path, url, hub, sql, wheel, package; found none",
        ),
        (
            "path: data/inbox/reviews.csv",
            "path: data/inbox/reviews.csv\n      wheel: a==1",
            "needs exactly one of path, url, hub, sql, wheel, package; found path and wheel",
        ),
        (
            "scratch: {max_position_embeddings: 64}",
            "scratch: {}\n    path: data/inbox/model",
            "params.yaml:7: ingest.base_model: needs exactly one of wheel, path, hub, scratch; found path and scratch",
        ),
        ("scratch: {max_position_embeddings: 64}", "wheel: a==1", "wheel needs a member: the folder inside it"),
        (
            "scratch: {max_position_embeddings: 64}",
            f"scratch: {{}}\n    sha256: {{config.json: {'a' * 64}}}",
            "scratch builds its files here: leave sha256 out",
        ),
        ("scratch: {max_position_embeddings: 64}", "scratch: {}\n    member: a", "scratch takes no member"),
        (
            "label: stars}",
            'label: stars}\n  labels: {1: bad, "1": good}',
            "params.yaml:3: ingest: labels: the label '1' is there twice",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_reason(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = MINIMAL.replace(old, new)
    with pytest.raises(AttuneError) as raised:
        load(tmp_path, text)
    assert said in str(raised.value)


PATH = "path: data/inbox/reviews.csv"
COMMIT = "a" * 40


def source(*keys: str) -> str:
    """Lines to stand where the minimal file's path stands."""
    return "\n      ".join(keys)


@pytest.mark.parametrize(
    "keys",
    [
        ("url: https://example.org/a.csv?version=3",),
        ("url: s3://bucket/folder/a.parquet", "etag: '\"abc\"'"),
        ("url: az://container/a.csv",),
        ("url: 'http://[::1]:8080/a.zip'", "member: day/*.csv"),
        ("hub: owner/name", f"revision: {COMMIT}", "member: data/a.parquet"),
        ("hub: owner/name", "revision: v1.0", "member: data/a.zip/day/*.csv.gz"),
        ("sql: REVIEWS_DB", "query: WITH x AS (SELECT 1 AS body, 2 AS stars) SELECT * FROM x"),
        ("sql: REVIEWS_DB", 'query: "-- the newest\\n (select 1) ;  "'),
        ("path: data/inbox/a.tar.gz", "member: ./a.csv"),
        ("wheel: a==1", "member: a/data.zip/rows.csv"),
    ],
)
def test_every_kind_of_source_is_accepted(tmp_path: Path, keys: tuple[str, ...]) -> None:
    assert load(tmp_path, MINIMAL.replace(PATH, source(*keys))).ingest.sources[0].kind == keys[0].split(":")[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("url: file:///etc/passwd",), "a file of yours goes to data/inbox/"),
        (("url: /etc/passwd.csv",), "a file of yours goes to data/inbox/"),
        (("url: simplecache::file:///etc/passwd.csv",), "must begin with one of https://, "),
        (("url: reference://a.csv",), "must begin with one of https://, "),
        (("url: s3://bucket/a.csv::file:///etc/passwd.csv",), "is no address of a file"),
        (("url: https:///a.csv",), "is no address of a file"),
        (("url: 'http://[::1/a.csv'",), "is no address"),
        (("url: https://user:hunter2@example.org/a.csv",), "must not hold a user or password"),
        (("url: https://hunter2@example.org/a.csv",), "must not hold a user or password"),
        (("url: s3://key:hunter2@bucket/a.csv",), "must not hold a user or password"),
        (("url: sftp://example.org/a.csv",), "download the file to data/inbox/ first"),
        (("url: https://example.org/download?id=3",), "cannot tell the format of 'download'"),
        (("url: https://example.org/a.zip",), "url names an archive and needs a member"),
        (("url: https://example.org/a.csv", "member: b.csv"), "url takes no member: it is no archive"),
        (("path: data/inbox/a.zip", "member: b.tar/c.csv"), "an archive inside an archive"),
        (("path: data/inbox/a.zip", "member: b.tgz"), "an archive inside an archive"),
        (("path: data/inbox/a.zip", "member: ../c.csv"), "must be a path inside"),
        (("hub: owner/name", "member: a.csv"), "hub needs a revision"),
        (("hub: owner/name", f"revision: {COMMIT}"), "hub needs a member"),
        (("hub: owner/name", f"revision: {COMMIT}", "member: a.zip"), "name the file inside it too, as a.zip/"),
        (("hub: owner/name", "revision: main", "member: a.csv"), "main is a branch, which moves"),
        (("hub: owner/name", "revision: refs/pr/1", "member: a.csv"), "must be a commit (40 hex digits) or a tag"),
        (("hub: https://hub/owner/name", f"revision: {COMMIT}", "member: a.csv"), "as owner/name"),
        (("path: data/inbox/a.csv", "revision: v1"), "path takes no revision"),
        (("path: data/inbox/a.csv", "query: SELECT 1"), "path takes no query"),
        (("path: data/inbox/a.csv", "etag: x"), "path takes no etag"),
        (("sql: REVIEWS_DB",), "sql needs a query"),
        (("sql: REVIEWS_DB", "query: SELECT 1", "format: csv"), "sql takes no format"),
        (("sql: REVIEWS_DB", "query: SELECT 1", f"sha256: {'a' * 64}"), "sql takes no sha256"),
        (("sql: 'postgresql://reader:hunter2@host/db'", "query: SELECT 1"), "the name of an environment variable"),
        (("sql: REVIEWS_DB", "query: SELECT 1; DROP TABLE x"), "must be one statement"),
        (("sql: REVIEWS_DB", "query: DROP TABLE x"), "must be a SELECT"),
        (("sql: REVIEWS_DB", "query: '/* SELECT */ DELETE FROM x'"), "must be a SELECT"),
        (("sql: REVIEWS_DB", "query: selected"), "must be a SELECT"),
    ],
)
def test_a_source_that_cannot_be_is_refused_with_the_reason(tmp_path: Path, keys: tuple[str, ...], said: str) -> None:
    message = fault_of(tmp_path, PATH, source(*keys))
    assert said in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("second", "refused"),
    [
        ("", True),
        ("\n      encoding: latin-1", True),
        ("\n      label: good", False),
    ],
)
def test_a_place_that_is_read_twice_in_the_same_way_is_refused(tmp_path: Path, second: str, refused: bool) -> None:
    columns = "{text: body}" if "label" in second else "{text: body, label: stars}"
    entry = f"label: stars}}\n    - path: data/inbox/reviews.csv{second}\n      columns: {columns}\n"
    text = MINIMAL.replace("label: stars}\n", entry)
    if refused:
        with pytest.raises(AttuneError, match=r"sources: entries 1 and 2 both read data/inbox/reviews\.csv"):
            load(tmp_path, text)
    else:
        assert len(load(tmp_path, text).ingest.sources) == 2


def test_no_origin_and_no_dump_holds_what_a_query_string_may_hide(tmp_path: Path) -> None:
    keys = source("url: 'https://example.org/a.csv?signature=hunter2#hunter2'")
    params = load(tmp_path, MINIMAL.replace(PATH, keys))
    assert params.ingest.sources[0].origin == "https://example.org/a.csv"
    assert "hunter2" not in json.dumps(params.model_dump(mode="json"))  # as MLflow gets it
    assert params.ingest.sources[0].url and "hunter2" in params.ingest.sources[0].url


def test_texts_to_keep_clear_of_need_no_label(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        "  base_model:",
        "  decontaminate_against:\n"
        "    - {path: data/inbox/benchmark.txt}\n"
        "    - {sql: BENCHMARKS, query: SELECT question FROM tests, columns: {text: question}}\n"
        "  base_model:",
    )
    assert [one.kind for one in load(tmp_path, text).ingest.decontaminate_against] == ["path", "sql"]
    with pytest.raises(AttuneError, match=r"decontaminate_against.1: needs columns.text"):
        load(tmp_path, text.replace(", columns: {text: question}", ""))


def test_a_model_of_the_hub_needs_a_fixed_revision(tmp_path: Path) -> None:
    scratch = "scratch: {max_position_embeddings: 64}"
    assert "ingest.base_model: hub needs a revision" in fault_of(tmp_path, scratch, "hub: bert-base-chinese")
    params = load(tmp_path, MINIMAL.replace(scratch, f"hub: owner/name\n    revision: {COMMIT}"))
    assert params.ingest.base_model.origin == f"owner/name@{COMMIT}"


@pytest.mark.parametrize("path", ["/etc/passwd", "data/inbox/../../secret.csv", "elsewhere.csv", "data/inbox", "''"])
def test_a_path_outside_the_inbox_is_refused(tmp_path: Path, path: str) -> None:
    assert "below data/inbox/" in fault_of(tmp_path, "data/inbox/reviews.csv", path)


@pytest.mark.parametrize("member", ["../../etc/passwd", "/etc/passwd", "a/../../b.csv"])
def test_a_member_that_climbs_out_of_its_wheel_is_refused(tmp_path: Path, member: str) -> None:
    message = fault_of(tmp_path, "path: data/inbox/reviews.csv", f"wheel: a==1\n      member: {member}")
    assert "params.yaml:6: ingest.sources.0.member: must be a path inside the package" in message


@pytest.mark.parametrize("requirement", ["a", "a>=1", "a==1 --index-url http://x", "-r==1", "a==*", "a @ http://x"])
def test_a_wheel_that_is_not_pinned_to_one_release_is_refused(tmp_path: Path, requirement: str) -> None:
    wheel = f"wheel: '{requirement}'\n      member: a.csv"
    assert "must be pinned to one release" in fault_of(tmp_path, "path: data/inbox/reviews.csv", wheel)


@pytest.mark.parametrize("encoding", ["utf9", "rot13", "base64", "undefined"])
def test_an_encoding_that_turns_no_bytes_into_text_is_refused(tmp_path: Path, encoding: str) -> None:
    message = fault_of(tmp_path, "      columns: {text", f"      encoding: {encoding}\n      columns: {{text")
    assert "params.yaml:6: ingest.sources.0.encoding: is no text encoding Python knows" in message


@pytest.mark.parametrize("separator", ["'\"'", '"\\n"', '"\\r"'])
def test_a_separator_that_a_csv_file_uses_for_something_else_is_refused(tmp_path: Path, separator: str) -> None:
    message = fault_of(tmp_path, "      columns: {text", f"      separator: {separator}\n      columns: {{text")
    assert "params.yaml:6: ingest.sources.0.separator: " in message


def test_a_column_carried_along_twice_is_refused(tmp_path: Path) -> None:
    assert "extra names 'mood' twice" in fault_of(tmp_path, "label: stars}", "label: stars, extra: [mood, mood]}")


def test_a_choice_is_answered_with_the_choices_and_the_likely_one(tmp_path: Path) -> None:
    message = fault_of(tmp_path, "learning_rate: 1e-4", "strategy: heads")
    known = "'full', 'head', 'partial', 'lora', 'adalora', 'ia3', 'prefix'"
    assert f"params.yaml:14: finetune.strategy: must be one of {known}, not 'heads'; did you mean 'head'?" in message


def test_a_section_that_holds_nothing_is_told_to_be_written_as_empty(tmp_path: Path) -> None:
    message = fault_of(tmp_path, "  max_length: 32", "")
    assert "params.yaml:11: tokenize: " in message
    assert "{}" in message
    with pytest.raises(AttuneError, match="needs the sections"):
        load(tmp_path, "")


def test_text_that_is_not_yaml_is_an_error_with_its_line(tmp_path: Path) -> None:
    assert "params.yaml:7: not valid YAML" in fault_of(tmp_path, "stars}", "stars")


def test_a_key_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    message = fault_of(tmp_path, "seed: 7", "seed: 7\nseed: 8")
    assert "params.yaml:3: not valid YAML: " in message
    assert "seed" in message


def test_a_file_of_other_bytes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"task: \xff\xfe")
    with pytest.raises(AttuneError, match="not UTF-8 text"):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file_is_an_error_that_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(AttuneError, match=r"(?s)params.yaml: no such file.*recipes/"):
        load_params(tmp_path / "params.yaml")


def test_a_tag_that_asks_for_code_is_never_run(tmp_path: Path) -> None:
    fault_of(tmp_path, "seed: 7", f"seed: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]")
    assert not (tmp_path / "made").exists()


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    params = load(tmp_path, MINIMAL.replace("label: stars}", "label: stars}\n  labels: {no: bad, on: good, 3: so so}"))
    assert params.ingest.label_map == {"no": "bad", "on": "good", "3": "so so"}
    assert params.finetune.learning_rate == 0.0001


def test_a_label_written_as_true_matches_the_text_that_files_have_for_it(tmp_path: Path) -> None:
    params = load(tmp_path, MINIMAL.replace("label: stars}", "label: stars}\n  labels: {true: yes, false: no}"))
    # JSON and Parquet spell it true; what pandas writes into a CSV file is True
    assert params.ingest.label_map == {"true": "yes", "True": "yes", "false": "no", "False": "no"}


def test_block_texts_and_anchors_are_ordinary_yaml(tmp_path: Path) -> None:
    text = MINIMAL.replace("model_name: reviews", "model_name: >-\n    reviews").replace("seed: 7", "seed: 0x10")
    assert load(tmp_path, text).register_.model_name == "reviews"
    assert load(tmp_path, text).seed == 16


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(recipe: Path) -> None:
    load_params(recipe)


def test_the_repository_has_recipes_and_a_valid_params_file() -> None:
    assert len(list((ROOT / "recipes").glob("*.yaml"))) >= 3
    load_params(ROOT / "params.yaml")


def test_the_json_schema_in_the_repository_is_up_to_date() -> None:
    assert (ROOT / "params.schema.json").read_text(encoding="utf-8") == json_schema()


def test_the_schema_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["ingest"]


def test_the_check_command_says_what_is_wrong_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text(MINIMAL.replace("seed", "sed"), encoding="utf-8")
    assert main([str(tmp_path / "params.yaml")]) == 1
    assert "did you mean 'seed'?" in capsys.readouterr().err


def _sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        pending: list[Any] = [field.annotation]
        while pending:
            annotation = pending.pop()
            pending.extend(get_args(annotation))
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
                found |= _sections(annotation)
    return found


SECTIONS = sorted(_sections(Params), key=lambda model: model.__name__)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda model: model.__name__)
def test_every_key_of_every_section_says_what_it_is_for(section: type[BaseModel]) -> None:
    assert (section.__doc__ or "").strip()
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name} has no description"
        assert field.description.endswith("."), f"the description of {section.__name__}.{name} is no sentence"


def test_every_section_is_reached_and_forbids_unknown_keys() -> None:
    assert {"Source", "Scratch", "Columns", "ChampionGate", "Params"} <= {model.__name__ for model in SECTIONS}
    assert all(model.model_config["extra"] == "forbid" and model.model_config["strict"] for model in SECTIONS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from([*(field.alias or name for name, field in Params.model_fields.items()), "other"]), JSON
    )
)
def test_whatever_a_file_holds_the_answer_is_params_or_a_message(data: dict[str, Any]) -> None:
    try:
        check_params(data)
    except AttuneError as error:
        assert "fault" in str(error)
