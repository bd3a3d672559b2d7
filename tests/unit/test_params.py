"""params.yaml: whatever is wrong in it is reported with file, line, key and what to write instead."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.common.errors import AttuneError
from stages.common.params import Params, check_params, load_params
from stages.common.params.__main__ import main
from stages.common.params.reference import doc_line
from tests.projects import PROJECT

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
LENGTH, SCRATCH = "  length: {min: 3, max: 100}", "scratch: {max_position_embeddings: 64}"
RATE, MODEL = "learning_rate: 1e-4", "  model_name: reviews"
PATH, COLUMNS, COMMIT = "path: data/inbox/reviews.csv", "      columns: {text", "a" * 40
FIRST = "    - path: data/inbox/reviews.csv\n      columns: {text: body, label: stars}"


def load(folder: Path, old: str, new: str) -> Params:
    """Load the minimal file with one thing changed."""
    assert MINIMAL.count(old) == 1, f"{old!r} must stand once in the file"
    file = folder / "params.yaml"
    file.write_bytes(MINIMAL.replace(old, new).encode(errors="surrogateescape"))
    return load_params(file)


def fault_of(folder: Path, old: str, new: str) -> str:
    """Return the message about the minimal file with one thing changed."""
    with pytest.raises(AttuneError) as raised:
        load(folder, old, new)
    return str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # an unknown key, with the likely spelling
        ("tokenize:", "tokenise:", "11: tokenise: unknown key; did you mean 'tokenize'?"),
        ("columns: {text", "zzz: {text", "6: ingest.sources.0.zzz: unknown key; known here: path, url, hub, revision"),
        # a type is never converted, a value never out of its range
        ("seed: 7", "seed: '7'", "2: seed: "),
        ("  sources:", "  sources: []\n  x:", "4: ingest.sources: must not be empty"),
        ("  max_length: 32", "", "11: tokenize: must hold keys, not None (a section with nothing to say is left out"),
        ("  model_name", "  modl_name", "1 fault:\n  FILE:18: register.modl_name: unknown key; did you"),
        (SCRATCH, "scrach: {}", "1 fault:\n  FILE:8: ingest.base_model.scrach: unknown key; did you"),
        (PATH, "pth: data/inbox/reviews.csv", "1 fault:\n  FILE:5: ingest.sources.0.pth: unknown key; did"),
        ("  model_name: reviews", "  fail_on_gate: true", "17: register.model_name: this key is required"),
        # sections that contradict each other or themselves
        ("{min: 3, max: 100}", "{min: 30, max: 10}", "10: clean.length.min: is greater than max (10)"),
        (LENGTH, "  split: {validation: 0.5, test: 0.4}", "10: clean.split: validation + test = 0.9 leaves under 20 %"),
        (LENGTH, "  split: {by: time}", "10: clean.split.by: is time, but no source has"),
        (LENGTH, "  pii: {phone_region: UK}", "10: clean.pii.phone_region: must be an ISO 3166"),
        (LENGTH, "  languages: {keep: [eng]}", "10: clean.languages.keep.0: must be an ISO 639-1"),
        ("tokenize:\n  max_length: 32\n", "", "tokenize.max_length: is over the scratch model's"),
        (SCRATCH, "scratch: {hidden_size: 10, num_attention_heads: 4}", "8: ingest.base_model.scratch.hidden_size: "),
        # a word, a limit or a knob that is another task's
        (
            "task: text-",
            "task: txt-",
            "1: task: must be one of 'causal-lm', 'multi-label', 'regression', 'text-classification', not",
        ),
        (
            RATE,
            "loss: focl",
            "14: finetune.loss: must be one of 'cross_entropy', 'focal', not 'focl'; did you mean 'focal'?",
        ),
        (
            RATE,
            "metric_for_best_model: macro_fi",
            "14: finetune.metric_for_best_model: must be one of 'macro_f1', 'acc",
        ),
        (
            RATE,
            "metric_for_best_model: loss\n  greater_is_better: true",
            "15: finetune.greater_is_better: is the wrong w",
        ),
        ("reviews\n", "reviews\ntune: {metric: mae}\n", "19: tune.metric: must be one of 'macro_f1', "),
        (
            "{columns: [source]}",
            "{columns: []}\n  baselines: [majority, mean]",
            "17: evaluate.baselines.1: must be one of '",
        ),
        *(
            (MODEL, f"{MODEL}\n  gates: {gates}", f"19: register.gates.{fault}")
            for gates, fault in (
                (
                    "{minimum: {acuracy: 0.8}}",
                    "minimum.acuracy: must be one of 'macro_f1', 'accuracy', 'weighted_f1', ",
                ),
                ("{minimum: {accuracy: 80}}", "minimum.accuracy: must be of 0 to 1, as accuracy is, not 80"),
                (
                    "{maximum: {accuracy: 0.8}}",
                    "maximum.accuracy: more of accuracy is better: give register.gates.mini",
                ),
                ("{beat_baselines: [mean]}", "beat_baselines: 'mean' is not among evaluate.baselines"),
                ("{champion: {metric: macro}}", "champion.metric: must be one of 'macro_f1', "),
                ("{champion: {allowed_drop: 2.0}}", "champion.allowed_drop: must be of 0 to 1, as macro_f1 is, not 2"),
                (
                    "{slices: {metric: weighted_f1, minimum: 0.5}}",
                    "slices.metric: must be one of 'macro_f1', 'accuracy', not",
                ),
                (
                    "{slices: {maximum: 0.5}}",
                    "slices.maximum: more of macro_f1 is better: give register.gates.slices.mini",
                ),
                ("{slices: {}}", "slices: needs either minimum, or maximum where less is better"),
                (
                    "{recall: {a: 0.5}}",
                    "recall: is a knob of the task multi-label (task is text-classification): take it out",
                ),
            )
        ),
        (RATE, "huber_delta: 2.0", '14: finetune.huber_delta: belongs to loss: "huber", not null: set it to 1.0'),
        (
            LENGTH,
            "  conflict_above: 1",
            "10: clean.conflict_above: is a knob of the task regression (task is text-classif",
        ),
        (
            "label: stars}",
            "labels: [a]}",
            "6: ingest.sources.0.columns.labels: is a knob of the task multi-label (task is t",
        ),
        ("stars}", "stars}\n  range: [5, 1]", "7: ingest.range: holds no number: 5 is not under 1"),
        (
            "{columns: [source]}",
            "{}\n  thresholds: {metric: f1}",
            "17: evaluate.thresholds.metric: 'f1' is a knob of the ta",
        ),
        (
            "{columns: [source]}",
            "{}\n  thresholds: {per: shared}",
            "17: evaluate.thresholds.per: is a knob of the task mul",
        ),
        ("columns: [source]", "columns: [mood]", "16: evaluate.slices.columns: 'mood' is none of group,"),
        ("evaluate:", "augment: {synonyms: {share: 0.1}}\nevaluate:", "15: augment.synonyms: is on, and its data"),
        ("evaluate:", "export: {onnx: false}\nevaluate:", "15: export.int8: is made of the ONNX model"),
        # columns and labels of a source, and the base model
        ("stars}", "stars}\n      label: good", "5: ingest.sources.0: needs either columns.label (a column), columns."),
        ("{text: body, label: stars}", "{label: stars}", "ingest.sources.0: needs columns.text"),
        ("reviews.csv", "reviews.txt", "ingest.sources.0.columns: plain lines have none"),
        (
            COLUMNS,
            "      pattern: (?P<text>.+)\n      columns: {text",
            "6: ingest.sources.0.pattern: is for plain",
        ),
        ("reviews.csv", "a.txt\n      pattern: .+", "6: ingest.sources.0.pattern: has no named group: (?P<text>.+)"),
        (
            "reviews.csv",
            "a.txt\n      pattern: (?P<a>.)(?P<a>.)",
            "6: ingest.sources.0.pattern: is no regular",
        ),
        ("reviews.csv", "a.txt\n      pattern: (?P<body>.+", "of Rust's kind: unclosed group"),
        (
            "reviews.csv",
            "a.txt\n      pattern: (?P<body>.+)",
            "ingest.sources.0.columns: 'stars' is no group of",
        ),
        ("stars}", "stars}\n  split_names: {dev2: valid}", "7: ingest.split_names.dev2: must be one of 'train',"),
        (COLUMNS, "      encoding: rot13\n      columns: {text", "encoding: is no text encoding Python knows"),
        (COLUMNS, "      separator: '\"'\n      columns: {text", "separator: must not be a quote"),
        (SCRATCH, "wheel: a==1", "wheel needs a member: The folder inside the wheel"),
        # a blank that is missing after a colon, wherever the line stands
        (RATE, "learning_rate:1e-4", "14: finetune: there is no blank after the colon: write `learning_rate: 1e-4`"),
        (RATE, "seed: 1\n  learning_rate:1e-4", "15: there is no blank after the colon\n  → write `learning_rate: 1"),
        (RATE, "learning_rate:1e-4\n  optim: sgd", "14: there is no blank after the colon\n  → write `learning_rate:"),
        ("seed: 7", "seed:7  # of all", "2: there is no blank after the colon\n  → write `seed: 7`"),
        ("{min: 3,", "{min:3,", "10: clean.length.min:3: there is no blank after the colon: write `min: 3`"),
        (PATH, "path:data/inbox/reviews.csv", "5: there is no blank after the colon\n  → write `path: data/inbox/rev"),
        ("stars}", "stars}\n  labels: {1:bad, 2: good}", "7: ingest.labels.1:bad: there is no blank after the colon"),
        # no YAML: the line of the mistake, which may be above the one in which YAML gives up
        (RATE, f"seed 1\n  {RATE}", "14: not valid YAML: "),
        (RATE, f"{RATE}\n  seed 1", "15: not valid YAML: could not find expected ':'"),
        ("seed: 7", 'seed: "7', "2: not valid YAML"),
        ("  sources:", "   sources:", "7: not valid YAML"),
        ("  base_model:", "   base_model:", "7: not valid YAML"),
        ("stars}", "stars", "6: not valid YAML"),
        ("seed: 7", "seed: 7\nseed: 8", "3: not valid YAML: found duplicate key"),
        ("  max_length", "  : max_length", "12: tokenize.null: keys should be strings, not None"),
        ("  max_length", ":  max_length", "12: null: keys should be strings, not None"),
        ("  max_length", "  1: 2\n  max_length", "12: tokenize.1: keys should be strings, not 1"),
        ("seed: 7", 'seed: "7\nx: "y"', "2: not valid YAML: expected <block end>, but found '<scalar>'"),
        ("stars}", "é \udce9stars}", "6: b'\\xe9' is nothing that YAML in UTF-8 may hold\n  → write that line again"),
        ("stars}", "é \0stars}", "6: b'\\x00' is nothing that YAML in UTF-8 may hold"),
    ],
)
def test_a_fault_is_reported_with_line_key_and_remedy(tmp_path: Path, old: str, new: str, expected: str) -> None:
    message = fault_of(tmp_path, old, new)
    assert expected.replace("FILE", str(tmp_path / "params.yaml")) in message and "params.yaml:" in message


def searched(name: str, **dimension: Any) -> dict[str, Any]:
    return {"tune": {"space": {f"finetune.{name}": dimension}}}


def numbers(**sections: Any) -> dict[str, Any]:
    return {"task": "regression", **sections}


def gates(**gates: Any) -> dict[str, Any]:
    return {"register": {"model_name": "reviews", "gates": gates}}


TOLD = {"name": "x", "texts": ["x"], "label": "good"}
MOVED = {"name": "x", "text": "x", "changed": "y"}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"finetune": {"strategy": "lora", "lora": {"target_modules": "x"}}}, "must be one of 'all-linear', not 'x'"),
        ({"finetune": {"strategy": "adalora", "adalora": {"init_r": 2}}}, "adalora.target_r: is not under init_r (2)"),
        ({"finetune": {"strategy": "adalora", "adalora": {"tinit_ratio": 0.8}}}, "adalora.tfinal_ratio: leaves no"),
        ({"finetune": {"strategy": "ia3", "ia3": {"feedforward_modules": ["x"]}}}, "feedforward_modules: names 'x'"),
        ({"tune": {"space": {"tokenize.max_length": {"choices": [16]}}}}, "a trial runs finetune alone"),
        (
            searched("loss", choices=["focal", "bce"]),
            "tune.space.finetune.loss: must be one of 'cross_entropy', 'focal'",
        ),
        (
            searched("huber_delta", low=0.5, high=2.0),
            "tune.space.finetune.huber_delta: is a knob of the task regression",
        ),
        (
            numbers(clean={"label_issues": {"action": "off", "folds": 3}}),
            "clean.label_issues: is a knob of the tasks multi",
        ),
        (
            numbers(augment={"label_preservation": {"min_probability": 0.5}}),
            "label_preservation.min_probability: is a knob",
        ),
        (
            numbers(evaluate={"thresholds": {}}),
            "evaluate.thresholds: is a knob of the tasks multi-label, text-classificatio",
        ),
        (
            numbers(evaluate={"behaviour": {"minimum": [TOLD]}}),
            "evaluate.behaviour.minimum: is a knob of the tasks multi",
        ),
        (
            numbers(**gates(minimum={"mae": 0.8})),
            "minimum.mae: less of mae is better: give register.gates.maximum.mae inst",
        ),
        (numbers(clean={"split": {"deciles": [1.0] * 9}}), "clean.split.deciles: must rise from each to the next"),
        (
            {"evaluate": {"behaviour": {"direction": [MOVED]}}},
            "direction.0.label: is required: the label whose probabil",
        ),
        (searched("learnin_rate", choices=[1e-4]), "did you mean 'finetune.learning_rate'?"),
        (searched("train_on", choices=["train"]), "trials are compared by this"),
        (searched("lora.r", low=1, high=2.5), "valid integer, not 2.5"),
        (searched("num_train_epochs", low=1, high=9, step=0.5), "step cannot be 0.5"),
        (searched("learning_rate", low=3e-4, high=2e-5), "tune.space.finetune.learning_rate.low: must be under high"),
        (searched("learning_rate", low=1e-5), "give low and high, or choices"),
        (searched("weight_decay", low=0.0, high=0.1, log=True), "log: needs a low above 0"),
    ],
)
def test_a_value_that_cannot_be_is_answered_in_one_line(sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(AttuneError, match="has 1 fault:") as raised:
        check_params({**YAML(typ="safe").load(MINIMAL), **sections})
    assert expected in raised.value.what


def test_what_is_left_out_is_the_tasks_own() -> None:
    settings = {
        "finetune": {"loss": "huber", "huber_delta": 0.5, "metric_for_best_model": "spearman"},
        "augment": {"label_preservation": {"enabled": False}},
        "evaluate": {"conformal": 0.8, "max_width": 20.0, "behaviour": {"direction": [{**MOVED, "margin": 3.0}]}},
        **gates(minimum={"r2": 0.1}, maximum={"mae": 12.5}, slices={"maximum": 20.0}, coverage_within=0.03),
    }
    data = YAML(typ="safe").load(MINIMAL)
    params = check_params({**data, **settings, "ingest": data["ingest"] | {"range": [0, 5]}, "task": "regression"})
    assert (params.metric_for_best_model, params.champion_metric) == ("spearman", "mae")
    assert (params.slices_metric, params.baselines[:2]) == ("mae", ["mean", "median"])
    params = check_params({**data, "evaluate": {"baselines": []}})
    assert (params.metric_for_best_model, params.champion_metric) == ("macro_f1", "macro_f1")
    assert params.baselines == []


def test_every_fault_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    message = fault_of(tmp_path, MINIMAL, MINIMAL.replace("seed", "sed").replace("1e-4", "1e-4\n  momentum: 0.9"))
    assert "params.yaml has 2 faults" in message and "params.yaml:2: sed: unknown key" in message
    assert 'params.yaml:15: finetune.momentum: belongs to optim: "sgd", not "adamw": set it to 0.0' in message


def test_a_file_that_is_missing_or_holds_nothing_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    for content, expected in {
        None: "No such file",
        b"\xff\xfe": "yaml:1: .*UTF-8",
        b"": "ingest: this key is required",
    }.items():
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(AttuneError, match=expected):
            load_params(file)


@pytest.mark.parametrize(
    "keys",
    [
        ("url: https://example.org/a.csv?version=3",),
        ("url: s3://bucket/folder/a.parquet", "etag: '\"abc\"'"),
        ("hub: owner/name", f"revision: {COMMIT}", "member: data/a.parquet"),
        ("sql: REVIEWS_DB", 'query: "-- the newest\\n (select 1) ;  "'),
        ("path: data/inbox/a.tar.gz", "member: ./a.csv"),
    ],
)
def test_every_kind_of_source_is_accepted(tmp_path: Path, keys: tuple[str, ...]) -> None:
    assert load(tmp_path, PATH, "\n      ".join(keys)).ingest.sources[0].kind == keys[0].split(":")[0]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ((PATH, "wheel: a==1"), "found path and wheel"),
        (("path: data/inbox/../../a.csv",), "below data/inbox/"),
        (("path: data/inbox/a.xlsx",), "cannot tell the format of 'a.xlsx'"),
        (("path: data/inbox/a.csv", "member: a.csv"), "member: path takes none: it is no archive"),
        (("path: data/inbox/a.zip",), "is an archive: member has to name the file inside it"),
        (("path: data/inbox/a.zip", "member: b.tar/c.csv"), "an archive inside an archive"),
        (("path: data/inbox/a.zip", "member: ../c.csv"), "must be a path inside"),
        (("url: file:///etc/passwd",), "a file of yours goes to data/inbox/"),
        (("url: s3://key:hunter2@bucket/a.csv",), "must not hold a user or password"),
        (("hub: owner/name", "member: a.csv"), "hub needs a revision"),
        (("hub: owner/name", "revision: main", "member: a.csv"), "must be a commit (40 hex digits"),
        (("hub: https://hub/owner/name",), "as owner/name"),
        (("sql: 'postgresql://reader:hunter2@host/db'", "query: SELECT 1"), "the name of an environment variable"),
        (("sql: REVIEWS_DB", "query: SELECT 1; DROP TABLE x"), "must be one statement"),
        (("sql: REVIEWS_DB", "query: '/* SELECT */ DELETE FROM x'"), "must be a SELECT"),
        (("wheel: a>=1",), "must be one release"),
    ],
)
def test_a_source_that_cannot_be_is_refused(tmp_path: Path, keys: tuple[str, ...], expected: str) -> None:
    message = fault_of(tmp_path, PATH, "\n      ".join(keys))
    assert expected in message and "hunter2" not in message


def test_no_origin_and_no_dump_holds_what_a_query_string_may_hide(tmp_path: Path) -> None:
    params = load(tmp_path, PATH, "url: 'https://example.org/a.csv?signature=hunter2#hunter2'")
    source = params.ingest.sources[0]
    assert source.origin == "https://example.org/a.csv" and "hunter2" in str(source.url)
    assert "hunter2" not in json.dumps(params.model_dump(mode="json"))  # as MLflow gets it


def test_yaml_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    labels = "{no: bad, on: good, 3: so so, true: yes}"
    params = load(tmp_path, "label: stars}", f"label: stars}}\n  labels: {labels}")
    # JSON and Parquet spell it true; what pandas writes into a CSV file is True
    assert params.ingest.label_map == {"no": "bad", "on": "good", "3": "so so", "true": "yes", "True": "yes"}
    assert params.finetune.learning_rate == 0.0001
    assert params.section("register") is params.register_


def test_the_files_of_the_repository_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (PROJECT / "params.yaml", *(PROJECT / "recipes").glob("*.yaml")):
        assert main([str(file)]) == 0
    (tmp_path / "params.yaml").write_text(MINIMAL, encoding="utf-8")
    assert main([str(tmp_path / "params.yaml")]) == 1
    assert "augment, export, tracking left out" in capsys.readouterr().err
    pages = {"--schema": "params.schema.json", "--reference": "docs/params.md", "--tasks": "docs/tasks.md"}
    for option, page in pages.items():
        assert main([option]) == 0
        assert capsys.readouterr().out == (PROJECT / page).read_text(encoding="utf-8"), f"make schema: {page} is old"


def test_every_key_has_a_meaning() -> None:
    assert doc_line("ingest.sources.0.path") == "A file of your own below data/inbox/."
    assert doc_line("tune.space.finetune.lora.r.low") == "Least value."
    assert doc_line("ingest.labels.good").startswith("Raw label → label")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES |= st.lists(VALUES, max_size=2) | st.dictionaries(st.text(max_size=12), VALUES, max_size=2)


@given(st.dictionaries(st.sampled_from(["register", "other", *Params.model_fields]), VALUES))
def test_whatever_a_file_holds_the_answer_is_params_or_a_message(data: dict[str, Any]) -> None:
    try:
        check_params(data)
    except AttuneError as error:
        assert "fault" in str(error)


@pytest.mark.parametrize("name", ["10:30", "a%20b", "what?", "Größe #1 $HOME 'x'"])
def test_a_folder_in_which_programs_cannot_work_is_refused_at_once(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "checkout"
    folder.mkdir(parents=True)
    shutil.copyfile(PROJECT / "Makefile", folder / "Makefile")
    made = subprocess.run(["make", "help"], cwd=folder, capture_output=True, text=True, check=False)
    if "#" in name:
        assert made.returncode == 0
        return
    fix = "rename that folder, or move the checkout to another"
    assert made.returncode == 2 and f"in its path ({folder}): {fix}" in made.stderr
