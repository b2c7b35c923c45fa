# shellcheck shell=bash
# Where things live: the clone, the cache outside it, the tools. Sourced, never run.
# Nothing a script makes lands inside the clone, apart from what cargo itself puts into target/.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${TWINPORT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/twinport}
tools=$cache/bin
mkdir -p "$cache" "$tools"
export PATH=$tools:$PATH:/usr/sbin:/sbin

have() { command -v "$1" >/dev/null 2>&1; }

# Versions of the tools that `go install` builds; every script that names one reads it here.
crane_module=github.com/google/go-containerregistry/cmd/crane@v0.22.1
regctl_module=github.com/regclient/regclient/cmd/regctl@v0.11.7
helm_module=helm.sh/helm/v3/cmd/helm@v3.22.0
cosign_module=github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
buildkit_module=github.com/moby/buildkit@v0.32.2
distribution_module=github.com/distribution/distribution/v3/cmd/registry@v3.1.2
minio_module=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
versitygw_module=github.com/versity/versitygw/cmd/versitygw@v1.8.0
# And of what comes from PyPI.
oras_package=oras==0.2.43
jwt_packages=(PyJWT==2.15.1 cryptography==50.0.2)
kubernetes_package=kubernetes-validate==1.34.1

# The folder cargo builds into: the caller's, else the clone's own.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$root/target}"; }
