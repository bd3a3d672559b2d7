"""What changed between two revisions: settings, stages, code, versions, data, and what their checks say."""

from flows.git import GitFailed
from flows.reviewing.changed.code_changes import changed_files, code_changes
from flows.reviewing.changed.param_changes import param_changes
from flows.reviewing.changed.stage_changes import stage_changes
from flows.reviewing.changed.table_changes import row_changes, validation_changes
from flows.reviewing.changed.version_changes import version_changes
from flows.reviewing.findings import Changes
from flows.reviewing.revision import Revision


def changes_between(base: Revision, head: Revision, examples: int) -> Changes:
    """Compare two revisions; what cannot be compared is told in a line of `missing`.

    Args:
        base: the older one.
        head: the newer one.
        examples: rows listed of each kind of change in the data.
    """
    missing: list[str] = []
    try:
        files = changed_files(base, head)
    except GitFailed as error:
        files = []
        missing.append(f"files of the two commits cannot be compared: {error}")
    params, more_params = param_changes(base, head)
    stages, more_stages = stage_changes(base, head, files)
    versions, more_versions = version_changes(base, head)
    data, more_data = row_changes(base, head, examples)
    validation, more_validation = validation_changes(base, head)
    missing += [*more_params, *more_stages, *more_versions, *more_data, *more_validation]
    return Changes(params, stages, code_changes(files), versions, data, validation, tuple(missing))
