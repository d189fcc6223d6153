#!/bin/sh
# Installs what the test of the console in a browser needs, on Debian and Ubuntu: Chromium,
# Node.js, and the package that steers the one from the other.
set -eu
cd "$(dirname "$0")/.."

packages=
command -v chromium >/dev/null 2>&1 || packages="chromium"
command -v npm >/dev/null 2>&1 || packages="$packages nodejs npm"
if [ -n "$packages" ]; then
	# shellcheck disable=SC2086 # a list
	scripts/apt-install.sh --no-install-recommends $packages
fi
npm install --prefix internal/e2e/browser --no-package-lock --no-audit --no-fund >&2
