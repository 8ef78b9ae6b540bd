# syntax=docker/dockerfile:1
# The trainer: docker build -f images/trainer.Dockerfile -t node-anomaly/trainer .
# Pinned by tag and by hash as images/agent.Dockerfile says.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/trainer.txt requirements/
RUN python3 -m venv /build \
    && /build/bin/python -m pip install --quiet --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/node-anomaly \
    && /opt/node-anomaly/bin/python -m pip install --quiet --require-hashes --only-binary=:all: -r requirements/trainer.txt
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY agent agent
COPY trainer trainer
# What `anomaly-trainer backtest` asks is in the wheel.
COPY rules/recording.yml rules/alerts.yml rules/
RUN /build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/node-anomaly/bin/python -m pip install --quiet --no-deps /wheel/*.whl \
    && /opt/node-anomaly/bin/python -m pip uninstall --quiet --yes pip

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="node-anomaly trainer" \
      org.opencontainers.image.description="Trains anomaly models on Prometheus history and publishes what passes the gate" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      node-anomaly.sbom="/usr/share/node-anomaly/sbom.cdx.json"
COPY --from=build /opt/node-anomaly /opt/node-anomaly
COPY requirements/trainer.cdx.json /usr/share/node-anomaly/sbom.cdx.json
RUN install -d -o 65534 -g 65534 /data
# /tmp is all that it writes besides /data: matplotlib's cache, TensorFlow's scratch files.
ENV PATH=/opt/node-anomaly/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
USER 65534:65534
WORKDIR /data
VOLUME /data
# A run, not a service: it ends, and its exit code tells how.
HEALTHCHECK NONE
ENTRYPOINT ["anomaly-trainer"]
CMD ["--help"]
