#!/usr/bin/env bash
# Set up the environment and build the site into build/site. Warnings, such as
# a broken link, are errors. Options go to sphinx-build: -E reads all anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../tools/_env.sh"

cd "$root"
set_up_environment
# for the tutorials: with images this small, more threads cost more than they bring
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
PYTHONPATH="$root" python -m sphinx --fail-on-warning --keep-going -d build/doctrees "$@" \
  docs build/site
