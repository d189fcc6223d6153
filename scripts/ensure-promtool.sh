#!/usr/bin/env bash
# Makes sure that there is promtool, of Debian's package prometheus.
set -euo pipefail
if command -v promtool >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "promtool is missing: install Prometheus (https://prometheus.io/download/)" >&2
  exit 1
fi
"$(dirname "$0")/apt-install.sh" --no-install-recommends prometheus
