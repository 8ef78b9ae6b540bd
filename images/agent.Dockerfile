# syntax=docker/dockerfile:1
# The agent: docker build -f images/agent.Dockerfile -t node-anomaly/agent .
# The base is pinned by tag, not by digest: a digest ages, and a build of yours should take the fixes of Debian
# and Python. Pin it with --build-arg PYTHON_IMAGE=...@sha256:... where builds must repeat. All that is installed
# on top is pinned by hash.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/build.txt requirements/agent.txt requirements/
RUN python3 -m venv /build \
    && /build/bin/python -m pip install --quiet --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/node-anomaly \
    && /opt/node-anomaly/bin/python -m pip install --quiet --require-hashes --only-binary=:all: -r requirements/agent.txt
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY agent agent
COPY trainer trainer
# What `anomaly-trainer backtest` asks is in the wheel.
COPY rules/recording.yml rules/alerts.yml rules/
RUN /build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/node-anomaly/bin/python -m pip install --quiet --no-deps /wheel/*.whl \
    && /opt/node-anomaly/bin/python -m pip uninstall --quiet --yes pip setuptools \
    && python3 -m compileall -q /opt/node-anomaly/lib

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="node-anomaly agent" \
      org.opencontainers.image.description="Scores this node with a published bundle and exposes the result to Prometheus" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      node-anomaly.sbom="/usr/share/node-anomaly/sbom.cdx.json"
COPY --from=build /opt/node-anomaly /opt/node-anomaly
COPY requirements/agent.cdx.json /usr/share/node-anomaly/sbom.cdx.json
# The journal is read by libsystemd; a base without it fails here and not on a node.
RUN python3 -c 'import ctypes; ctypes.CDLL("libsystemd.so.0")' \
    && install -d -o 65534 -g 65534 -m 0750 /var/lib/node-anomaly
ENV PATH=/opt/node-anomaly/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
VOLUME /var/lib/node-anomaly
EXPOSE 9917
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9917/-/healthy', timeout=4)"]
ENTRYPOINT ["anomaly-agent"]
