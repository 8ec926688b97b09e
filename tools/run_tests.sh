#!/usr/bin/env bash
# Set up the environment and run the tests, in one process per core unless
# -n or -k says otherwise; options go to pytest:
#     bash tools/run_tests.sh -k routing
#     bash tools/run_tests.sh --slow
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

cd "$root"
set_up_environment
processes=(-n auto --maxprocesses 8 --dist worksteal)
for option in "$@"; do
  case $option in
    -n* | -k* | --numprocesses*) processes=() ;;
  esac
done
exec python -m pytest ${processes[@]+"${processes[@]}"} "$@"
