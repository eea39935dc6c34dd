# Sourced by build.sh: an S3 server, MinIO. AGPL: only ever a process of its own in tests, see minio/README.md.
PEERS="$PEERS minio"

build_minio() { go_build minio minio github.com/minio/minio; }
