#!/usr/bin/env bash
# Builds a stand-in for the base image python:3.11-slim out of Debian's packages, so that an image is built where no
# container registry is reachable. Prints the image's name; builds nothing when the image is there already.
# Needs root, docker and debootstrap.
set -euo pipefail

# What this machine trusts, its image trusts too: a build behind a proxy finds PyPI.
trusted=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
image="bintally-python:3.11-$(cat "$0" "$trusted" | sha256sum | cut -c1-12)"

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
cp "$trusted" "$root/etc/ssl/certs/ca-certificates.crt"
chmod 0755 "$root"
tar -C "$root" --one-file-system --exclude=./proc/* --exclude=./sys/* --exclude=./dev/* -c . |
  docker import --change 'ENV LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' - "$image" >&2
echo "$image"
