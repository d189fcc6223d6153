#!/bin/sh
# Installs what the programs in examples/ need, on Debian and Ubuntu: the packages of
# Python, Ruby and PHP, and those of Node.js into examples/node.
set -eu
cd "$(dirname "$0")/.."

packages=
for package in python3-django python3-sqlalchemy python3-psycopg2 python3-psycopg ruby-activerecord ruby-pg ruby-sequel ruby-rack ruby-webrick php-cli php-pgsql; do
	dpkg -s "$package" >/dev/null 2>&1 || packages="$packages $package"
done
if ! command -v npm >/dev/null 2>&1; then
	packages="$packages nodejs npm"
fi
if [ -n "$packages" ]; then
	# shellcheck disable=SC2086 # a list
	scripts/apt-install.sh $packages
fi
npm install --prefix examples/node --no-package-lock --no-audit --no-fund >&2 &
# The client needs no engine, and its generator none that it would have to download.
(npm install --prefix examples/node/prisma --no-package-lock --no-audit --no-fund --ignore-scripts &&
	cd examples/node/prisma && PRISMA_SCHEMA_ENGINE_BINARY=/bin/true DATABASE_URL=postgres://localhost npx prisma generate --schema schema.prisma) >&2
wait $!
