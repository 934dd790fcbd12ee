#!/usr/bin/env bash
# Fetches the libraries of the explorer page again, at the versions below, into
# assets/vendor. The checksums of what it writes stand in assets/README.md, and a
# test compares them. Run it after raising a version, then correct that table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

graphiql=4.1.2 # the last line with a UMD build; 5 brings 7 MB of Monaco and a bundler
react=18.3.1   # the last React with a UMD build

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
npm install --silent --no-save --ignore-scripts --legacy-peer-deps --prefix "$fetched" \
  "graphiql@$graphiql" "react@$react" "react-dom@$react"

# keep NAME: standard input, packed, becomes assets/vendor/NAME.gz.
keep() { gzip -9n >"assets/vendor/$1.gz"; }

# Source maps are not shipped, so their links go. The 34 embedded fonts are most of
# the style sheet (268 of 275 kB packed); the page uses the fonts of the system.
mkdir -p assets/vendor
packages=$fetched/node_modules
sed '/^\/\/# sourceMappingURL=/d' "$packages/graphiql/dist/index.umd.js" | keep graphiql.js
sed '/^@font-face {$/,/^}$/d' "$packages/graphiql/dist/style.css" | keep graphiql.css
keep react.js <"$packages/react/umd/react.production.min.js"
keep react-dom.js <"$packages/react-dom/umd/react-dom.production.min.js"

cd assets/vendor
for name in *.gz; do
  printf '%s  %s\n' "$(gzip -dc "$name" | sha256sum | cut -d' ' -f1)" "${name%.gz}"
done
