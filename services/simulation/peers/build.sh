#!/usr/bin/env bash
# Builds the real peers that tests start, outside the checkout: `build.sh` all of them, `build.sh kafka` those named.
# Prints the folder of each peer's binary, as `name folder`. A peer is built once for each state of its inputs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/cambium/peers

# Each peer is a function in a file of its own that adds its name here.
PEERS=""
for part in build-*.sh; do . "./$part"; done

# go_build BINARY FOLDER PACKAGE FLAGS…: into $out.
go_build() {
  local binary=$1 folder=$2 package=$3
  shift 3
  need go golang-go
  (cd "$folder" && GOFLAGS=-mod=readonly nice go build -p 2 -trimpath -ldflags '-s -w' "$@" -o "$out/$binary" "$package") >&2
}

# need COMMAND PACKAGE: Debian's, where there is none.
need() {
  command -v "$1" >/dev/null && return
  echo "build.sh: no $1 here, installing Debian's $2" >&2
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"; } >&2; then
    echo "build.sh: $1 is missing and could not be installed" >&2
    exit 1
  fi
}

# What a peer is built from: its folder, and how.
inputs_hash() {
  { declare -f "build_$1" go_build; find "$1" -type f | LC_ALL=C sort | xargs cat; } | sha256sum | cut -c1-16
}

build() {
  local peer=$1 folder
  folder=$CACHE/$peer-$(inputs_hash "$peer")
  mkdir -p "$CACHE"
  # One at a time: two runs would do the same work side by side.
  exec 9>"$CACHE/$peer.lock"
  flock 9
  if [ ! -e "$folder" ]; then
    echo "build.sh: building $peer, which takes minutes the first time" >&2
    out=$(mktemp -d "$CACHE/$peer.XXXXXX")
    "build_$peer"
    chmod 755 "$out"
    mv "$out" "$folder"
  fi
  exec 9>&-
  echo "$peer $folder"
}

for peer in ${*:-$PEERS}; do
  case " $PEERS " in *" $peer "*) ;; *) echo "build.sh: no peer $peer; there are $PEERS" >&2; exit 1 ;; esac
done
for peer in ${*:-$PEERS}; do build "$peer"; done
