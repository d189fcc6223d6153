#!/bin/sh
# Installs packages of Debian or Ubuntu, as root or by sudo. Options of "apt-get install" may come first.
#   scripts/apt-install.sh --no-install-recommends prometheus
set -eu
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
echo "Installing $* …" >&2
$sudo apt-get update -qq >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
