#!/bin/sh
# Resolve every requirement again and pin it with the hashes of all its files, for Python 3.11 to 3.13 and all
# platforms at once. Index addresses are not written: pip uses whatever index it is configured with.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
compile() {
    "$uv" pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --upgrade \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@"
}
# dev holds everything, so the smaller files are cut from its versions and can never disagree with it.
compile pyproject.toml --all-extras requirements/build.in -c requirements/constraints.txt -o requirements/dev.txt
compile pyproject.toml --extra trainer -c requirements/dev.txt -o requirements/trainer.txt
compile pyproject.toml -c requirements/dev.txt -o requirements/agent.txt
# The server that tests run against asks for an older pyarrow than the trainer: an environment of its own.
compile requirements/mlflow.in -o requirements/mlflow.txt
# Helm, which no distribution that we test on has, as a library; only tests want it.
compile requirements/helm.in -o requirements/helm.txt
compile requirements/build.in -c requirements/dev.txt -o requirements/build.txt
if grep -nE '(https?|file)://|--(extra-)?index-url|--find-links|--trusted-host' requirements/*.txt; then
    echo "Error: a lock file names an index or a host" >&2
    exit 1
fi
grep -cE '^[a-z].*==' requirements/agent.txt requirements/trainer.txt requirements/build.txt requirements/dev.txt requirements/mlflow.txt requirements/helm.txt
"${PYTHON:-.venv/bin/python}" scripts/sbom.py
