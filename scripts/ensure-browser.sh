#!/bin/sh
# Installs what the test of the console in a browser needs, on Debian and Ubuntu: Chromium,
# Node.js, and the package that steers the one from the other.
set -eu
cd "$(dirname "$0")/.."

sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
packages=
command -v chromium >/dev/null 2>&1 || packages="chromium"
command -v npm >/dev/null 2>&1 || packages="$packages nodejs npm"
if [ -n "$packages" ]; then
	echo "Installing $packages …" >&2
	$sudo apt-get update -qq >&2
	# shellcheck disable=SC2086 # a list
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2
fi
npm install --prefix internal/e2e/browser --no-package-lock --no-audit --no-fund >&2
