#!/usr/bin/env bash
# Fetches the library of the page again, at the version below, into assets/vendor.
# The checksum of what it writes stands in assets/README.md, and a test compares
# them. Run it after raising the version, then correct that table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

rapidoc=9.3.8

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
npm install --silent --no-save --ignore-scripts --prefix "$fetched" "rapidoc@$rapidoc"

# Its source map is not shipped, so the link to it goes.
mkdir -p assets/vendor
sed '/^\/\/# sourceMappingURL=/d' "$fetched/node_modules/rapidoc/dist/rapidoc-min.js" | gzip -9n >assets/vendor/rapidoc.js.gz

gzip -dc assets/vendor/rapidoc.js.gz | sha256sum
