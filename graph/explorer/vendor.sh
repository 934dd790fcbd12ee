#!/usr/bin/env bash
# Downloads the libraries of the explorer page, at the versions below, to
# assets/vendor. A test compares the files with the checksums in assets/README.md.
# To upgrade, change a version, run this script and update that table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

graphiql=4.1.2 # the last major version with a UMD build; 5 needs a bundler and 7 MB of Monaco
react=18.3.1   # the last React with a UMD build

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
npm install --silent --no-save --ignore-scripts --legacy-peer-deps --prefix "$fetched" \
  "graphiql@$graphiql" "react@$react" "react-dom@$react"

# keep NAME: compress standard input to assets/vendor/NAME.gz.
keep() { gzip -9n >"assets/vendor/$1.gz"; }

# Remove the links to source maps, which are not shipped, and the 34 embedded fonts,
# which are 268 of the 275 kB of the compressed style sheet. The page uses system fonts.
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
