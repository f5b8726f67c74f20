#!/usr/bin/env bash
# The plan of docs/experiments.md, section 14: teachers of two networks and two seeds, their answers, one student.
#
#     DATA=.data/abid experiments/plan.sh
#
# The same command continues where it was stopped. It reads nothing from the network. On a GPU it needs torch and the
# packages of the teachers' weights (requirements/train-test.txt), not OpenVINO, if START is a file that
# experiments.start wrote elsewhere: the student starts from it, and the shipped network is no teacher. SHIP=folder makes
# a package there afterwards, which needs OpenVINO and NNCF. LIMIT, EPOCHS, VIEWS, RENDERED and sizes are for a trial.
set -euo pipefail
cd "$(dirname "$0")/.."

export PYTHON=${PYTHON:-.venv-train/bin/python} OUT=${OUT:-.runs/plan} PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}functions:.
TEACHERS=${TEACHERS:-lite0:0 lite0:1 lite1:0} # network:seed
JOBS=${JOBS:-1}                               # teachers at once; 9 on a GPU of 80 GB or more with 16 cores
CHAMPION=${CHAMPION:-model/pretrained}
data=(--data "${DATA:?a folder of labelled photographs}" ${LIMIT:+--limit "$LIMIT"})

teach() { # network:seed:fold and the options that all teachers share
  IFS=: read -r network seed fold <<<"$1"
  local out=$OUT/teachers/$network-$seed-$fold
  [[ ! -f $out/network.pt ]] || return 0
  mkdir -p "$out"
  "$PYTHON" -m experiments.teachers --network "$network" --seed "$seed" --fold "$fold" --out "$out" "${@:2}" \
    >>"$out/log" 2>&1 || { tail -n 3 "$out/log" >&2 && return 1; }
  tail -n 1 "$out/log"
}
export -f teach
for teacher in $TEACHERS; do printf '%s\n' "$teacher:0" "$teacher:1" "$teacher:2"; done |
  xargs -P "$JOBS" -I{} bash -c 'teach "$@"' teach {} "${data[@]}" \
    ${EPOCHS:+--epochs "$EPOCHS"} ${TEACHER_SIZES:+--sizes "$TEACHER_SIZES"}

asked=(--champion "$CHAMPION") start=(--champion "$CHAMPION/model.tar.gz")
if [[ -n ${START:-} ]]; then asked=() start=(--network "$START"); fi
if [[ ! -f $OUT/answers/answers.npz ]]; then
  "$PYTHON" -m experiments.answers "$OUT"/teachers/* "${asked[@]}" "${data[@]}" --out "$OUT/answers" \
    ${VIEWS:+--views "$VIEWS"}
fi
if [[ ! -f $OUT/student/network.pt ]]; then
  "$PYTHON" -m experiments.student "${start[@]}" --answers "$OUT/answers/answers.npz" "${data[@]}" \
    --out "$OUT/student" ${STUDENT_SIZES:+--sizes "$STUDENT_SIZES"} ${RENDERED:+--rendered "$RENDERED"}
fi
if [[ -n ${SHIP:-} ]]; then
  version='import json, sys, tarfile; print(json.load(tarfile.open(sys.argv[1]).extractfile("package.json"))["model_version"])'
  "$PYTHON" -m tools.ship "$OUT/student" --data "$DATA" --out "$SHIP" \
    --parent "$("$PYTHON" -c "$version" "$CHAMPION/model.tar.gz")" \
    --how "on stored views with the answers of $TEACHERS (docs/experiments.md, section 14)"
fi
