#!/bin/sh
# Run a program with a Python that node-anomaly supports: $PYTHON if set, else python3, else the newest of
# python3.13 .. python3.11. Plain sh, because it has to say so clearly on machines whose python3 is too old.
set -eu
supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
seen=
for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$python" >/dev/null 2>&1; then
        if "$python" -c "$supported" 2>/dev/null; then
            exec "$python" "$@"
        fi
        seen="$seen $("$python" --version 2>&1) ($python);"
    fi
done
echo "Error: node-anomaly needs Python 3.11, 3.12 or 3.13; found:${seen:- none}" >&2
echo "Try: apt-get install python3 python3-venv, or PYTHON=/path/to/python3.12 make ..." >&2
exit 1
