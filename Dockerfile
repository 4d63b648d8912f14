# One image for the code server, the web server, the daemon and every run; docker-compose.yml builds
# and starts it. docs/operations.md has the commands.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
# The address of an index with CPU builds of torch; empty takes the index's own, which has CUDA.
ARG TORCH_INDEX_URL=
WORKDIR /opt/panacea
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt deploy/requirements.py ./
# Before the code, which changes more often.
RUN python requirements.py > requirements.txt \
    && PIP_EXTRA_INDEX_URL=${TORCH_INDEX_URL} \
    pip install --constraint constraints.txt --requirement requirements.txt

FROM dependencies AS app
COPY README.md LICENSE dagster.yaml ./
COPY assets_data assets_data
COPY panacea_lib panacea_lib
COPY orchestration orchestration
COPY deploy/entrypoint deploy/workspace.yaml deploy/
# Compiled here, as nothing can be written there later.
RUN pip install --no-deps --editable . && python -m compileall -q panacea_lib orchestration

FROM ${PYTHON_IMAGE}
COPY --from=app /opt/venv /opt/venv
COPY --from=app /opt/panacea /opt/panacea
# The volume over var/ takes its owner from here. All else in the image is root's.
RUN groupadd --gid 10001 panacea \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp panacea \
    && install -d -o panacea -g panacea /srv/panacea/var /srv/panacea/var/problems
# GOMP_SPINCOUNT and the three about telemetry are what the command `panacea` sets for itself.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    DO_NOT_TRACK=1 \
    DAGSTER_DISABLE_TELEMETRY=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    GOMP_SPINCOUNT=4000 \
    PYTHONUNBUFFERED=1 \
    PANACEA_HOME=/srv/panacea \
    DAGSTER_HOME=/srv/panacea \
    PANACEA_PROBLEMS=/srv/panacea/var/problems \
    HF_HOME=/srv/panacea/var/huggingface
# docker-compose.yml mounts the checkout's own over it, so that a setting needs no new image.
COPY deploy/dagster.yaml /srv/panacea/dagster.yaml
WORKDIR /srv/panacea
USER 10001:10001
ENTRYPOINT ["/opt/panacea/deploy/entrypoint"]
