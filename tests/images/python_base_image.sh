#!/usr/bin/env bash
# Builds a stand-in for the base image python:3.11-slim out of Debian's packages, with the wheels of a requirements
# file inside, so that an image is built where no container registry is reachable. Prints the image's name; builds
# nothing when the image is there already.
#
#     python_base_image.sh model/requirements.txt
#
# Needs root, docker, debootstrap, and a python3.11 with pip on the PATH.
set -euo pipefail

requirements=$1
image="bintally-python:3.11-$(cat "$0" "$requirements" | sha256sum | cut -c1-12)"

if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image"
  exit 0
fi

root=$(mktemp -d) log=$(mktemp)
trap 'rm -rf "$root" "$log"' EXIT
debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates bookworm "$root" >"$log" ||
  { cat "$log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
# As in the official image: `python` and a pip that installs for the whole system.
ln -s python3 "$root/usr/bin/python"
rm "$root/usr/lib/python3.11/EXTERNALLY-MANAGED"
python3 -m pip download --quiet --disable-pip-version-check --only-binary :all: --python-version 3.11 \
  --requirement "$requirements" --dest "$root/wheels" >&2
printf '[global]\nno-index = true\nfind-links = /wheels\n' >"$root/etc/pip.conf"
chmod 0755 "$root"
tar -C "$root" --one-file-system --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . |
  docker import --change 'ENV LANG=C.UTF-8' - "$image" >&2
echo "$image"
