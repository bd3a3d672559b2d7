"""When a source is looked at again: DVC watches files, not the network; `dvc repro -f ingest` looks."""

from pathlib import Path

import polars as pl

from tests.projects import Project, tiny
from tests.unit.file_server import serving


def content(kind: str) -> bytes:
    lines = [f"{kind} text number {at} {at * 7919},{'ab'[at % 2]}" for at in range(20)]
    return ("text,label\n" + "\n".join(lines) + "\n").encode()


def test_a_source_of_the_network_is_looked_at_again_when_asked_and_not_before(pipeline: Project) -> None:
    def first_text() -> str:
        records = pl.read_parquet(pipeline.root / "data/raw/records.parquet")
        return str(records["text"][0]).split(" ")[0]

    with serving(content=content("old"), etag='"1"') as server:
        source = {"url": f"{server.url}?signature=hunter2", "columns": {"text": "text", "label": "label"}}
        pipeline.change(lambda params: params["ingest"].update(sources=[source], labels=None))
        pipeline.change(tiny)
        pipeline.change(lambda params: params["evaluate"].pop("slices", None))
        assert pipeline.stages_run(pipeline.repro("ingest")) == ["ingest"]

        server.manners.content, server.manners.etag = content("new"), '"2"'
        assert pipeline.stages_run(pipeline.repro("ingest")) == []
        assert (first_text(), len(server.manners.requests)) == ("old", 1)
        assert pipeline.stages_run(pipeline.repro("-f", "ingest")) == ["ingest"]
        assert first_text() == "new"
    for path in [*Path(pipeline.root / "data").rglob("*"), *Path(pipeline.root / "models").rglob("*")]:
        assert not path.is_file() or b"hunter2" not in path.read_bytes()
