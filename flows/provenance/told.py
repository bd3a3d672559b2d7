"""A version's lineage for people and for programs. Names, tags and texts of a store are a stranger's: made harmless."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from flows.provenance.commits import Commit
from flows.provenance.lineage import SPLITS, base_model_of, sources_of
from flows.provenance.versions import MODEL_OUT, Making, Version
from stages.common.shown import shown

LONGEST = 160
MOST = 15  # settings shown, unless all are asked for
SCORES = {"accuracy": "test_accuracy", "macro-F1": "test_macro_f1"}
CLEANED = "reports/clean.json"


@dataclass(frozen=True)
class Story:
    """All that is known of where a version comes from.

    Args:
        version: as MLflow has it.
        making: what it keeps; None: nothing.
        link: to its run.
        subject: of its commit's message; nothing: the commit is not in this clone.
        here: whether this clone has the commit.
        recorded: commits whose `dvc.lock` has this very model.
        recipe: the closest one.
        differing: settings that are not the recipe's: key, (the recipe's, the version's).
        params: all settings.
        command: that restores it.
    """

    version: Version
    making: Making | None
    link: str
    subject: str
    here: bool
    recorded: Sequence[Commit]
    recipe: str
    differing: Mapping[str, tuple[str | None, str | None]]
    params: Mapping[str, str]
    command: str

    @property
    def missing(self) -> list[str]:
        """What is not known, a line each."""
        told = []
        if self.making is None:
            told.append("it keeps no dvc.lock, params.yaml or reports: it was registered before versions kept them")
        if not self.version.run:
            told.append("its MLflow run was deleted, and with it commit, params and scores")
        elif not self.version.commit:
            told.append("its run names no commit: it was trained outside of Git, or published from its files alone")
            if self.recorded:
                told.append("the commits above recorded this very model; the code that made it may have been another")
        elif not self.here:
            told.append("this clone does not have its commit; --restore asks origin for it")
        return told


def as_json(story: Story) -> dict[str, Any]:
    """Return the story for programs, texts as they are."""
    version, manifest = story.version, story.making.manifest if story.making else {}
    return {
        "model": version.name,
        "version": version.number,
        "aliases": list(version.aliases),
        "registered": f"{version.registered}Z".replace(" ", "T"),
        "rolled_back": version.demoted or None,
        "run": {"id": version.run, "name": version.run_name, "link": story.link} if version.run else None,
        "commit": {"hash": version.commit, "subject": story.subject, "branch": version.branch, "state": version.state},
        "recorded_by": [asdict(one) for one in story.recorded],
        "data": {
            "sources": list(manifest.get("sources", [])),
            "splits": {path: story.making.md5(path) for path in SPLITS} if story.making else {},
        },
        "base_model": manifest.get("base_model"),
        "digest": version.model,
        "recipe": story.recipe,
        "differing": {key: {"recipe": old, "version": new} for key, (old, new) in story.differing.items()},
        "params": dict(story.params),
        "scores": {key: value for key, value in version.metrics.items() if key.startswith("test_")},
        "missing": story.missing,
        "restore": story.command,
    }


def show(story: Story, console: Console, *, every_param: bool) -> None:
    """Print the story."""
    version = story.version
    alias = f" ({', '.join(version.aliases)})" if version.aliases else ""
    head = f"{_one(version.name)} version {version.number}{_one(alias)}, registered {version.registered} UTC"
    console.print(Text(f"\n{head}\n", style="bold"))
    for name, line in _lines(story, every_param):  # no table: a hash that is broken in two can be copied by nobody
        console.print(Text(f"{name:13}", style="bold"), Text(line), sep="", soft_wrap=True)
    console.print(Text("\nhow to get it back\n", style="bold"))
    console.print(Text(f"  {story.command}\n"), soft_wrap=True)


def _lines(story: Story, every_param: bool) -> Iterator[tuple[str, str]]:
    version, making = story.version, story.making
    if version.demoted:
        yield "rolled back", _one(version.demoted)
    if version.run:
        yield "run", _one(version.run_name)
        yield "", _one(story.link)
    if version.commit:
        branch = f" on {_one(version.branch)}" if version.branch else ""
        yield "commit", f"{version.commit[:10]}{branch}  {_one(story.subject)}".rstrip()
        yield "", _one(version.state)
    for at, one in enumerate(story.recorded):
        yield "" if at else "recorded by", f"{one.hash[:10]} of {one.time[:10]}  {_one(one.subject)}"
    if not story.recorded:
        yield "recorded by", "no commit of this clone: no dvc.lock has this very model"
    if making:
        yield from _data(making)
    yield "model", f"digest {_one(version.model)}"
    if making and making.md5(MODEL_OUT):
        yield "", f"{MODEL_OUT} {_one(making.md5(MODEL_OUT))} in dvc.lock"
    yield from _params(story, every_param)
    scores = [f"{name} {version.metrics[key]:.4f}" for name, key in SCORES.items() if key in version.metrics]
    if scores:
        yield "scores", ", ".join(scores) + " on its test rows"
    for at, line in enumerate(story.missing):
        yield "" if at else "not known", line


def _data(making: Making) -> Iterator[tuple[str, str]]:
    for at, (source, (origin, digest)) in enumerate(
        zip(making.manifest.get("sources", []), sources_of(making.manifest), strict=True)
    ):
        rows = source.get("rows_read")
        told = f", {rows:,} rows" if isinstance(rows, int) else ""
        yield "" if at else "data", f"{_one(origin)}{told}"
        yield "", f"sha256 {_one(digest)}"
    splits = making.report(CLEANED).get("splits", {})
    for path in SPLITS:
        name = path.rpartition("/")[2].removesuffix(".parquet")
        if making.md5(path):
            rows = (splits.get(name) or {}).get("rows")
            told = f", {rows:,} rows" if isinstance(rows, int) else ""
            yield "", f"{path}{told}, md5 {_one(making.md5(path))}"
    origin, digest = base_model_of(making.manifest)
    yield "base model", _one(origin)
    if digest:
        yield "", f"sha256 {_one(digest)}"


def _params(story: Story, every_param: bool) -> Iterator[tuple[str, str]]:
    if not story.params:
        return
    if story.recipe:
        how = f"those of {story.recipe}" + (", but" if story.differing else "")
        yield "params", how
    for at, (key, (old, new)) in enumerate(story.differing.items()):
        if at == MOST and not every_param:
            yield "", f"… and {len(story.differing) - MOST} more (--params)"
            break
        yield "", f"{_one(key)}: {_one(new or 'not set', 60)} (recipe: {_one(old or 'not set', 60)})"
    if every_param:
        for at, (key, value) in enumerate(story.params.items()):
            yield "" if at else "all params", f"{_one(key)}: {_one(value)}"


def _one(text: str, most: int = LONGEST) -> str:
    return shown(text, most)
