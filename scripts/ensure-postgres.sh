#!/bin/sh
# Makes sure that Postgres server binaries (initdb, postgres) are installed.
# On Debian and Ubuntu it installs the package, without the cluster that the
# package would start; elsewhere it says what to install.
set -eu

for dir in "${WALRELAY_PG_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin \
	/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
	/Applications/Postgres.app/Contents/Versions/*/bin; do
	if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
		exit 0
	fi
done
if command -v initdb >/dev/null 2>&1 && command -v postgres >/dev/null 2>&1; then
	exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
	cat >&2 <<'TEXT'
No Postgres server binaries (initdb, postgres) found. Install them:
  Fedora, Red Hat:  sudo dnf install postgresql-server
  Arch:             sudo pacman -S postgresql
  macOS:            brew install postgresql@17
or set WALRELAY_PG_BIN to the folder that has them. For the demo, an existing
database does as well: make demo POSTGRES_URL=postgres://…
TEXT
	exit 1
fi

sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
echo "Installing the Postgres server binaries (package postgresql) …" >&2
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
	$sudo mkdir -p /etc/postgresql-common
	echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
$sudo apt-get update -qq >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >&2
