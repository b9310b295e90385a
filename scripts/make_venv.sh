#!/bin/sh
# make_venv.sh FOLDER: a virtual environment by $PYTHON (default python3), or a sentence about what is missing.
set -eu
python=${PYTHON:-python3}
command -v "$python" >/dev/null || {
    echo "There is no $python. On Debian or Ubuntu: sudo apt install python3 python3-venv python3-pip" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || {
    echo "Flambeau needs Python 3.11 to 3.14; $python is $("$python" -V). Choose another: make PYTHON=python3.12 ..." >&2
    exit 1
}
# Debian ships the venv module without ensurepip, in a package of its own.
"$python" -c 'import ensurepip, venv' 2>/dev/null || {
    echo "$python cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv" >&2
    exit 1
}
rm -rf "$1"
"$python" -m venv "$1"
