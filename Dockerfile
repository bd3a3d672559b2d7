# What a run needs besides the project: Python, git and the pinned packages. The project itself is a clone on a volume at
# ATTUNE_HOME, so that runs share its DVC cache and each works at its own commit (docs/containers.md).
#   docker build -t attune .
# For torch without CUDA: --build-arg PIP_EXTRA_INDEX_URL=… (PyTorch's index of CPU builds)
FROM python:3.11.14-slim-trixie

# more packages, at the versions of constraints.txt: --build-arg EXTRA='psycopg[binary] s3fs'
ARG PIP_EXTRA_INDEX_URL EXTRA
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git ca-certificates openssh-client \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.txt constraints.txt /tmp/
RUN PIP_CONSTRAINT=/tmp/constraints.txt pip install -r /tmp/requirements.txt ${EXTRA} && rm /tmp/*.txt

# The clone's folder may belong to whoever mounted it, which Git takes for a stranger's.
RUN useradd --uid 1000 --create-home attune \
    && install --directory --owner attune --group attune /srv/attune \
    && git config --system --add safe.directory /srv/attune

ENV ATTUNE_HOME=/srv/attune
USER 1000:1000
WORKDIR /home/attune
CMD ["prefect", "worker", "start", "--pool", "attune", "--type", "process"]
