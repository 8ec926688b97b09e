#!/usr/bin/env bash
# Test in several processes: one per GPU or, where there is none, on the CPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

if [ $# -lt 3 ] || [[ ! $3 =~ ^[1-9][0-9]*$ ]]; then
  cat >&2 <<'USAGE'
usage: bash tools/dist_test.sh CONFIG CHECKPOINT N [options of tools/test.py]

N is the number of processes on this machine. For several machines, run it on
each with NNODES (how many), NODE_RANK (0, 1, ...), MASTER_ADDR (of machine 0)
and, if 29500 is taken, PORT in the environment.
USAGE
  exit 2
fi
config=$1
checkpoint=$2
processes=$3
shift 3

run_processes "$processes" "$root/tools/test.py" "$config" "$checkpoint" \
  --launcher pytorch "$@"
