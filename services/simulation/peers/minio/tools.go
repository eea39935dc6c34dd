//go:build tools

// Package minio pins the S3 server that the tests start.
package minio

import _ "github.com/minio/minio"
