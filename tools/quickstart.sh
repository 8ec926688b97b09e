#!/usr/bin/env bash
# The whole recipe on scikit-learn's scanned digits, made long-tailed: set up
# the environment, train both stages, test, summarize. Nothing is downloaded
# but the packages. A second call goes on where the first one stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

cd "$root"
config=configs/ride_r32_digits_lt.py
out=work_dirs/quickstart
log=$out/quickstart.log
# for images this small, more threads cost more than they bring
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# Of mmengine's log, without its long headers: progress, tables, problems ...
readable() {
  local line
  while IFS= read -r line; do
    case $line in
      *'Epoch(train)'*) echo "  Epoch${line#*Epoch(train)}" ;;
      '| '* | '+-'*) echo "$line" ;;
      *) problems <<<"$line" ;;
    esac
  done
}

# ... or only the problems.
problems() {
  local line
  while IFS= read -r line; do
    case $line in
      *FileClient* | *HardDiskBackend* | *'prefix is not set'* | *'resumed key'*) ;;
      *' - WARNING - '* | *' - ERROR - '*) echo "$line" ;;
      'error: '* | 'warning: '*) echo "$line" ;;
    esac
  done
}

# step TITLE COMMAND...: run it with its whole output in the log.
step() {
  printf '\n== %s\n' "$1"
  shift
  if ! PYTHONUNBUFFERED=1 "$@" 2>&1 | tee -a "$log" | "$show"; then
    printf '\nerror: this step failed: %s\nThe end of %s:\n\n' "$*" "$log" >&2
    tail -n 25 "$log" >&2
    exit 1
  fi
}

set_up_environment
start=$SECONDS
mkdir -p "$out"

show=readable
step '1/3 Training: 3 experts for 40 epochs, then the router for 5' \
  python tools/train.py "$config" --work-dir "$out" --resume
checkpoint=$(cat "$out/last_checkpoint")

# The predictions of an earlier call go; the table comes with the summary.
rm -f "$out/predictions.npz"
show=problems
step '2/3 Testing on images that no training has seen' \
  python tools/test.py "$config" "$checkpoint" --work-dir "$out" \
  --out "$out/predictions.npz"

show='cat'
step '3/3 Summary' \
  python tools/analysis/summarize.py "$config" "$out/predictions.npz" \
  --out-dir "$out"

cat <<EOT

Done in $((SECONDS - start)) s.
  checkpoint   ${checkpoint#"$root"/}
  plots        $out/accuracy_by_class.png, $out/expert_usage.png
  whole log    $log

EOT
if [ -z "$(active_prefix)" ]; then
  echo 'Next, in this shell:  . .venv/bin/activate'
else
  echo 'Next:'
fi
cat <<'EOT'
  CIFAR-100-LT      python tools/train.py configs/ride_r32_cifar100_lt.py
  your own images   "Train on your own images" in README.md
EOT
