#!/usr/bin/env bash
# Downloads the library of the page, at the version below, to assets/vendor. A test
# compares the files with the checksums in assets/README.md. To upgrade, change the
# version, run this script and update that table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

rapidoc=9.3.8

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
npm install --silent --no-save --ignore-scripts --prefix "$fetched" "rapidoc@$rapidoc"

# Remove the link to the source map, which is not shipped.
mkdir -p assets/vendor
sed '/^\/\/# sourceMappingURL=/d' "$fetched/node_modules/rapidoc/dist/rapidoc-min.js" | gzip -9n >assets/vendor/rapidoc.js.gz

gzip -dc assets/vendor/rapidoc.js.gz | sha256sum
