# One lab's server: its keys and secrets, its container, and the files that tell others how to reach it.
# shellcheck shell=bash

# The container, the volume and the network all carry the lab's name and this label.
LABEL=opsh.lab

in_server() { docker exec -i "$LAB_NAME" "$@" </dev/null; }
server_is() { [[ $(docker inspect -f "{{.State.Running}} {{index .Config.Labels \"$LABEL\"}} {{index .Config.Labels \"$LABEL.spec\"}}" "$LAB_NAME" 2>/dev/null) == "$1" ]]; }
server_exists() { docker container inspect "$LAB_NAME" >/dev/null 2>&1; }
server_runs() { [[ $(docker inspect -f '{{.State.Running}}' "$LAB_NAME" 2>/dev/null) == true ]]; }
server_id() { docker inspect -f '{{.Id}}' "$LAB_NAME" 2>/dev/null; }

# Complete: this very container had its first release brought live.
server_complete() { [[ -f $LAB_DIR/opsh.toml && -n $(server_id) && $(cat "$LAB_DIR/complete" 2>/dev/null) == "$(server_id)" ]]; }

need_server() {
  command -v docker >/dev/null && docker version >/dev/null 2>&1 || die 'the Docker Engine does not answer' 'tests/lab/lab up'
  server_runs && server_complete || die "the lab $LAB_NAME is not up" "$(other_name)tests/lab/lab up"
}
other_name() { [[ $LAB_NAME == opsh-lab ]] || printf 'LAB_NAME=%s ' "$LAB_NAME"; }

# What must be the same for a running server to be the one that is asked for.
spec() {
  { settings_lines; echo "$SERVER_IMAGE $DB_TAR $BASE_TAR $BUILD_TAR $LAB_DIR"; digest project lib server app; } | short_hash
}

# Never touch a container, volume or network of that name that is somebody else's.
refuse_strangers() {
  local kind
  for kind in container volume network; do
    docker "$kind" inspect "$LAB_NAME" >/dev/null 2>&1 || continue
    case $kind in
      container) [[ -n $(docker ps -aq --filter "name=^$LAB_NAME\$" --filter "label=$LABEL") ]] ;;
      volume) [[ -n $(docker volume ls -q --filter "name=^$LAB_NAME\$" --filter "label=$LABEL") ]] ;;
      network) [[ -n $(docker network ls -q --filter "name=^$LAB_NAME\$" --filter "label=$LABEL") ]] ;;
    esac || die "there is a $kind named $LAB_NAME that is not a lab" 'choose another LAB_NAME' 2
  done
}

server_remove() { # server_remove [keep-volume]
  docker rm -f "$LAB_NAME" >/dev/null 2>&1 || true
  [[ ${1:-} == keep-volume ]] || docker volume rm -f "$LAB_NAME" >/dev/null 2>&1 || true
  ! server_exists || die "the container $LAB_NAME cannot be removed" "docker rm -f $LAB_NAME"
}

# Keys and secrets are made once per lab and kept until `lab down`.
secrets_make() {
  local name
  mkdir -p "$LAB_DIR/keys" "$LAB_DIR/seed"
  chmod 700 "$LAB_DIR/keys" "$LAB_DIR/seed"
  for name in deploy viewer; do
    [[ -s $LAB_DIR/keys/$name ]] || ssh-keygen -q -t ed25519 -N '' -C "$name@$LAB_NAME" -f "$LAB_DIR/keys/$name"
    cp "$LAB_DIR/keys/$name.pub" "$LAB_DIR/seed/"
  done
  [[ -s $LAB_DIR/seed/host_key ]] || ssh-keygen -q -t ed25519 -N '' -C "$LAB_NAME" -f "$LAB_DIR/seed/host_key"
  [[ -s $LAB_DIR/password ]] || random_word 24 | private "$LAB_DIR/password"
  "$LAB_BUILD/tools/busybox" mkpasswd -m sha512 -P 0 <"$LAB_DIR/password" | private "$LAB_DIR/seed/root_hash"
  [[ -s $LAB_DIR/seed/env.prod ]] || {
    echo 'POSTGRES_DB=vrcshift'
    echo 'POSTGRES_USER=vrcshift'
    echo "POSTGRES_PASSWORD=$(random_word 32)"
    echo "JWT_SECRET=$(random_word 48)"
    echo 'LOG_LEVEL=info'
    echo 'BACKEND_BIND=0.0.0.0'
  } | private "$LAB_DIR/seed/env.prod"
}
# Letters and digits only: the value goes into a URL and into files that others parse.
random_word() { { head -c 400 /dev/urandom | base64 -w0 | tr -dc 'A-Za-z0-9' || true; } | head -c "$1"; echo; }
private() { (umask 077; cat >"$1.new") && mv "$1.new" "$1"; }

server_make() {
  local ssh api key
  refuse_strangers
  secrets_make
  settings_lines | private "$LAB_DIR/seed/settings"
  key=$({ settings_lines; digest project lib/history.sh; } | short_hash)
  if [[ $(cat "$LAB_DIR/seed/history" 2>/dev/null) != "$key" ]]; then
    history_make "$LAB_DIR/seed/vrcshift.git"
    echo "$key" >"$LAB_DIR/seed/history"
  fi
  printf '%s=%s\n' DB_TAR "$DB_TAR" BASE_TAR "$BASE_TAR" BUILD_TAR "$BUILD_TAR" | private "$LAB_DIR/seed/images"
  docker network inspect "$LAB_NAME" >/dev/null 2>&1 || docker network create --label "$LABEL=$LAB_NAME" "$LAB_NAME" >/dev/null
  docker volume inspect "$LAB_NAME" >/dev/null 2>&1 || docker volume create --label "$LABEL=$LAB_NAME" "$LAB_NAME" >/dev/null
  # The ports of an earlier server of this lab, unless somebody else has taken them meanwhile.
  ssh=$(sed -n 's/^LAB_SSH_PORT=//p' "$LAB_DIR/ports" 2>/dev/null || true)
  api=$(sed -n 's/^LAB_API_PORT=//p' "$LAB_DIR/ports" 2>/dev/null || true)
  say 'starting the server'
  server_start "$ssh" "$api" || { [[ -n $ssh ]] && say 'its old ports are taken; it gets new ones' && server_start '' ''; } ||
    die 'the container of the server cannot be started' 'docker info'
  printf 'LAB_SSH_PORT=%s\nLAB_API_PORT=%s\n' "$(port_of 22)" "$(port_of 8080)" >"$LAB_DIR/ports"
}

port_of() { docker port "$LAB_NAME" "$1/tcp" | sed -n 's/^127\.0\.0\.1://p' | head -n 1; }

# Everything an Engine inside a container needs, without --privileged (which asks for more than some machines have).
server_start() { # server_start SSH-PORT API-PORT (empty: any free one)
  local cap args=()
  for cap in CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_BROADCAST NET_ADMIN \
    NET_RAW IPC_LOCK SYS_CHROOT SYS_PTRACE SYS_ADMIN SYS_NICE MKNOD AUDIT_WRITE SETFCAP; do
    args+=(--cap-add "$cap")
  done
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then args+=(--cgroupns private); else args+=(-v /sys/fs/cgroup:/sys/fs/cgroup:rw); fi
  docker rm -f "$LAB_NAME" >/dev/null 2>&1 || true
  quietly 'docker run' docker run -d --name "$LAB_NAME" --hostname prod-1 --network "$LAB_NAME" \
    --label "$LABEL=$LAB_NAME" --label "$LABEL.spec=$(spec)" "${args[@]}" \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    --device-cgroup-rule 'a *:* rwm' \
    -v /usr:/usr:ro -v "$LAB_NAME:/var/lib/docker" -v "$LAB_DIR/seed:/var/lib/lab/seed:ro" -v "$LAB_BUILD/images:/var/lib/lab/images:ro" \
    -p "127.0.0.1:$1:22" -p "127.0.0.1:$2:8080" "$SERVER_IMAGE"
}

server_ready() {
  in_server /var/lib/lab/bin/ready && return
  docker logs --tail 10 "$LAB_NAME" 2>&1 | sed 's/^/     | /' >&2
  die 'the server does not come up' "$(other_name)tests/lab/lab logs"
}

files_write() {
  local port print
  # shellcheck disable=SC1091
  . "$LAB_DIR/ports"
  port=$LAB_SSH_PORT
  print=$(ssh-keygen -lf "$LAB_DIR/seed/host_key.pub" | awk '{ print $2 }')
  {
    printf 'LAB_NAME=%s\nLAB_DIR=%s\n' "$LAB_NAME" "$LAB_DIR"
    settings_lines
    printf 'LAB_SSH_PORT=%s\nLAB_API_PORT=%s\nLAB_HOST_KEY=%s\n' "$port" "$LAB_API_PORT" "$print"
  } | private "$LAB_DIR/lab.env"
  {
    echo "# Written by tests/lab/lab for the practice server $LAB_NAME. Its API, seen from this machine: http://127.0.0.1:$LAB_API_PORT"
    host prod-1 root 'password = "file:password"'
    host prod-1-key deploy 'identity = "keys/deploy"'
    host prod-1-viewer viewer 'identity = "keys/viewer"'
    stack prod prod-1
    stack prod-key prod-1-key
    stack prod-viewer prod-1-viewer
  } | private "$LAB_DIR/opsh.toml"
}
host() { printf '\n[host.%s]\nssh = "%s@127.0.0.1"\nport = %s\nhost_key = "%s"\n%s\n' "$1" "$2" "$port" "$print" "$3"; }
stack() {
  printf '\n[stack.%s]\nhost = "%s"\n' "$1" "$2"
  cat <<'END'
dir = "/opt/vrcshift"
compose = { files = ["docker-compose.prod.yml"], env_file = ".env.prod", project = "vrcshift" }
services = { backend = { expects = ["/app/server", "/app/migrate"] } }
db = { service = "db", user = "vrcshift", name = "vrcshift" }
migrate = { preset = "vrcshift", service = "backend", files = "backend/migrations" }
probe = [{ url = "http://127.0.0.1:8080/api/v1/shifts", expect = 200 }]
END
}
