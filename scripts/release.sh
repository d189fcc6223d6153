#!/usr/bin/env bash
# Builds the archives of a release into dist/: walrelay for six platforms with man pages, shell completion,
# licences and service files; their checksums; and an SBOM (CycloneDX). The same commit and Go version give the
# same bytes.
#   scripts/release.sh 1.2.3
# TARGETS="linux/amd64 …" builds some platforms only.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?which version: scripts/release.sh 1.2.3}
targets=${TARGETS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64}
stamp=$(git log -1 --format=%ct)
dist=$PWD/dist
rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Licences of what is linked in, from the modules themselves.
notices() {
  echo "walrelay contains the following modules, under the licences below."
  go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/walrelay | LC_ALL=C sort -u |
    while read -r path number dir; do
      printf '\n================================================================\n%s %s\n' "$path" "$number"
      found=$(find "$dir" -maxdepth 1 -type f -iregex '.*/\(licen[cs]e\|copying\|notice\)[^/]*' | LC_ALL=C sort)
      if [ -z "$found" ]; then
        echo "no licence found in $path" >&2
        exit 1
      fi
      for file in $found; do
        printf -- '----------------------------------------------------------------\n'
        cat "$file"
      done
    done
  printf '\n================================================================\nuPlot (in the console)\n'
  cat internal/console/static/uplot/LICENSE
}
notices > "$work/THIRD-PARTY-NOTICES"

CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/walrelay-here" ./cmd/walrelay
mkdir "$work/completion"
for shell in bash zsh fish powershell; do
  "$work/walrelay-here" completion "$shell" > "$work/completion/walrelay.$shell"
done

mkdir "$work/man"
SOURCE_DATE_EPOCH=$stamp go test -count 1 -run '^TestManPages$' ./cmd/walrelay -man "$work/man" > /dev/null

for target in $targets; do
  os=${target%/*} arch=${target#*/}
  name=walrelay_${version}_${os}_${arch}
  mkdir "$work/$name"
  binary=walrelay
  if [ "$os" = windows ]; then binary=walrelay.exe; fi
  GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -buildid= -X main.version=$version" -o "$work/$name/$binary" ./cmd/walrelay
  cp -R LICENSE README.md CHANGELOG.md SECURITY.md "$work/THIRD-PARTY-NOTICES" "$work/completion" "$work/man" "$work/$name"
  if [ "$os" = linux ]; then
    cp deploy/walrelay.service deploy/walrelay.env.example deploy/supervisor.conf "$work/$name"
  fi
  tar -C "$work" --sort=name --mtime="@$stamp" --owner=0 --group=0 --numeric-owner --mode=u+rw,go+r,go-w,a+X -cf - "$name" |
    gzip -n9 > "$dist/$name.tar.gz"
done

# No timestamp and no serial number, so that it is the same each time.
go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0 app -json -licenses -noserial \
  -main cmd/walrelay -output "$dist/walrelay_${version}_sbom.cdx.json" . 2> /dev/null
sed -i '/"timestamp":/d' "$dist/walrelay_${version}_sbom.cdx.json"

(cd "$dist" && sha256sum -- * > SHA256SUMS)
ls -l "$dist"
