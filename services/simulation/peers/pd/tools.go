//go:build tools

// Package pd pins the placement driver that the tests start.
package pd

import _ "github.com/tikv/pd/cmd/pd-server"
