# shellcheck shell=bash
# What every client is told before it starts, how it is checked, and the daemons that some need. Sourced by scripts/test-clients.

# Clients keep their settings and storage inside the work folder, and talk to loopback only.
set_up_clients() {
  export HOME=$work/home XDG_RUNTIME_DIR=$work/run XDG_CONFIG_HOME=$work/home/.config XDG_CACHE_HOME=$work/home/.cache
  export XDG_DATA_HOME=$work/home/.local/share DOCKER_CONFIG=$work/home/.docker REGCTL_CONFIG=$work/regctl.json
  mkdir -p "$HOME" "$XDG_RUNTIME_DIR" "$DOCKER_CONFIG"
  # buildah stops at a DOCKER_CONFIG without the file.
  echo '{}' >"$DOCKER_CONFIG/config.json"
  policy=$work/policy.json
  echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$policy"
}

# speak http|https: how every client talks to the pair. Over TLS each one verifies the certificate, by the variables that
# Go, curl and Python read; docker alone never does on loopback.
speak() {
  scheme=$1
  case $scheme in
    http)
      verify=false plain_http=(--plain-http) regctl_tls=disabled
      cosign_transport=(--allow-http-registry --allow-insecure-registry)
      ;;
    https)
      verify=true plain_http=() regctl_tls=enabled cosign_transport=()
      export SSL_CERT_FILE=$work/tls/tls.crt CURL_CA_BUNDLE=$work/tls/tls.crt REQUESTS_CA_BUNDLE=$work/tls/tls.crt
      ;;
  esac
}

# A certificate as docs/how-to/serve-over-tls.md makes it, for the address instead of a name.
make_certificate() {
  [ ! -f "$work/tls/tls.crt" ] || return 0
  mkdir -p "$work/tls"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=paris.example.com \
    -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout "$work/tls/tls.key" -out "$work/tls/tls.crt" 2>"$work/tls/log"
}

# client PROGRAM NAME COMMAND…: a check that is a visible skip where the client is missing.
client() {
  local program=$1 name=$2
  shift 2
  if have "$program"; then check "$where: $name" "$@"; else skip "$where: $name" "$program is not installed"; fi
}

# rooted PROGRAM NAME COMMAND…: the same for what only root can start.
rooted() {
  if [ "$(id -u)" = 0 ]; then client "$@"; else skip "$where: $2" "$1 needs root"; fi
}

daemon_pids=()

# start_daemon NAME COMMAND…: in the background, its log in the work folder.
start_daemon() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 </dev/null &
  daemon_pids+=($!)
}

stop_daemons() {
  local pid
  for pid in "${daemon_pids[@]}"; do stop "$pid"; done
  daemon_pids=()
}
