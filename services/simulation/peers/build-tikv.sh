# Sourced by build.sh: the placement driver, the store and the client that a TiKV cluster is tested with.
PEERS="$PEERS pd tikv names"

# The real placement driver; the tag leaves its web pages out.
build_pd() { go_build pd-server pd github.com/tikv/pd/cmd/pd-server -tags without_dashboard; }

# A store that speaks TiKV's wire protocol: a stand-in for tikv-server, which no registry has.
build_tikv() { go_build tikv-store tikv .; }

# PingCAP's client for Go, resolving names: what ours is measured against.
build_names() { go_build names names .; }
