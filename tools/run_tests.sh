#!/usr/bin/env bash
# Set up the environment and run the tests; options go to pytest:
#     bash tools/run_tests.sh -k routing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

cd "$root"
set_up_environment
exec python -m pytest "$@"
