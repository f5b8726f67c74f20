#!/usr/bin/env bash
# Builds a substitute for AWS's Lambda base image from Debian's packages, for `sam local invoke` without a
# container registry. Prints the image's name; builds nothing if the image exists.
# Needs root, docker, debootstrap and uv.
set -euo pipefail

awslambdaric=4.2.2
boto3=1.43.106
image="bintally-lambda-python:3.11-ric${awslambdaric}-boto3-${boto3}"

if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image"
  exit 0
fi

root=$(mktemp -d) log=$(mktemp)
trap 'rm -rf "$root" "$log"' EXIT
# bookworm's Python is 3.11: functions for this image are built with PYTHON_VERSION=3.11.
debootstrap --variant=minbase --include=python3,ca-certificates bookworm "$root" >"$log" || { cat "$log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
# AWS's image also contains boto3, so functions do not package it.
uv pip install --quiet --target "$root/var/runtime" --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
  --only-binary :all: --no-compile-bytecode "awslambdaric==$awslambdaric" "boto3==$boto3" >&2
mkdir -p "$root/var/task"
cat >"$root/var/runtime/bootstrap" <<'BOOTSTRAP'
#!/bin/sh
# Like AWS's image: the function's own packages precede the runtime's.
export PYTHONPATH="/var/task:/var/runtime"
cd /var/task
exec python3 -m awslambdaric "$_HANDLER"
BOOTSTRAP
chmod 0755 "$root/var/runtime/bootstrap" "$root"
tar -C "$root" --one-file-system --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . |
  docker import --change 'ENV LANG=C.UTF-8 LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime' \
    --change 'WORKDIR /var/task' - "$image" >&2
echo "$image"
