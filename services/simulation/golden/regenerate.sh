#!/bin/sh
# Writes the golden answers: what Go's pprof tool, at the version pinned in oracle/go.mod, says about each profile.
#
#   regenerate.sh                           answers for profiles/ into answers/, which is replaced
#   regenerate.sh --for DIR --out OUT       answers for every profile of DIR into the (new or emptied) folder OUT
#
# Needs Go (>= 1.21, which fetches the toolchain oracle/go.mod asks for) and gzip. The tools are built once into
# ~/.cache/cambium/peers/bin. README.md beside this file says how to read an answer.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
profiles=$here/profiles
answers=$here/answers
gzip_above=8192 # bytes; a longer answer is stored as .txt.gz
while [ $# -gt 0 ]; do
    case $1 in
    --for) profiles=$(cd "$2" && pwd) ;;
    --out) answers=$2 ;;
    *) echo "usage: regenerate.sh [--for DIR --out OUT]" >&2 && exit 2 ;;
    esac
    shift 2
done
if [ "$answers" = "$here/answers" ] && [ "$profiles" != "$here/profiles" ]; then
    echo "regenerate.sh: --for needs --out" >&2
    exit 2
fi

tools=$HOME/.cache/cambium/peers/bin
mkdir -p "$tools"
(cd "$here/oracle" && go build -o "$tools/pprof" github.com/google/pprof && go build -o "$tools/pprof-oracle" .)
oracle=$tools/pprof-oracle

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Nothing of this machine may enter an answer: no local binaries, no saved profiles, no time zone.
export TZ=UTC PPROF_BINARY_PATH="$scratch/none" PPROF_TMPDIR="$scratch"

# ask FILE ARGUMENTS...: pprof's answer into FILE, or into FILE.gz when it is long.
ask() {
    file=$1
    shift
    "$tools/pprof" -symbolize=none "$@" >"$scratch/answer" 2>"$scratch/messages" || {
        echo "regenerate.sh: pprof $* failed:" >&2 && cat "$scratch/messages" >&2 && exit 1
    }
    if [ "$(wc -c <"$scratch/answer")" -gt "$gzip_above" ]; then
        gzip -n -9 <"$scratch/answer" >"$file.gz"
    else
        cp "$scratch/answer" "$file"
    fi
}

# answer NAME PROFILE...: every answer about the (merged) profiles, whose rebased twins lie in $scratch/rebased.
answer() {
    name=$1
    shift
    mkdir -p "$answers/$name"
    twins=
    for profile in "$@"; do twins="$twins $scratch/rebased/$profile"; done
    ask "$answers/$name/raw.txt" -raw "$@"
    "$oracle" types "$1" >"$scratch/types"
    while IFS='	' read -r index type unit; do
        all="-nodecount=0 -nodefraction=0 -edgefraction=0 -sample_index=$index -unit=$unit"
        base=$answers/$name/$type
        # The options, and the names of profiles, have no spaces: let the shell split them.
        # shellcheck disable=SC2086
        for granularity in functions lines addresses; do
            ask "$base.$granularity.top.txt" -top $all -$granularity "$@"
        done
        # shellcheck disable=SC2086
        ask "$base.file-addresses.top.txt" -top $all -addresses $twins
        # shellcheck disable=SC2086
        ask "$base.functions.traces.txt" -traces $all -functions "$@"
    done <"$scratch/types"
}

rm -rf "$answers"
mkdir -p "$answers" "$scratch/rebased"
answers=$(cd "$answers" && pwd)
cd "$profiles"
for profile in *; do
    case $profile in
    *.pb.gz | *.pprof) ;;
    *) continue ;;
    esac
    "$oracle" rebase "$profile" "$scratch/rebased/$profile"
    answer "${profile%.pb.gz}" "$profile"
done
grep -v '^#' "$here/merges.txt" | while IFS=: read -r name group; do
    # shellcheck disable=SC2086 # a list of names without spaces
    if ls $group >/dev/null 2>&1; then answer "$name" $group; fi
done
