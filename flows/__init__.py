"""When and where the pipeline happens; stages know nothing of it."""

import os

import stages  # noqa: F401  # how programs end

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # before Prefect reads its settings
