# What the lab builds: the application, the images of the server's Engine (as tar files), and the server's own image.
# Every product is named after a hash of all it was made from, so "is it there" is the same as "is it current".
# shellcheck shell=bash

build_keys() {
  local app host
  app=$(digest app lib/images.sh)
  APP_KEY=$app
  DB_KEY=$( (digest server/db-entrypoint lib/images.sh; dpkg-query -W -f '${Version}\n' postgresql-15 2>/dev/null || true) | short_hash)
  host=$(digest server lib/images.sh)
  SERVER_IMAGE=opsh-lab-server:$host
  DB_TAR=db-$DB_KEY.tar BASE_TAR=base-$APP_KEY.tar BUILD_TAR=build-$APP_KEY.tar
}

build_all() {
  mkdir -p "$LAB_BUILD/images" "$LAB_BUILD/tmp"
  lock 'building images' "$LAB_BUILD/build.lock"
  product "$BASE_TAR" 'the base image' base_root
  product "$BUILD_TAR" 'the application' program_root
  product "$DB_TAR" 'the database image' db_root
  if ! docker image inspect "$SERVER_IMAGE" >/dev/null 2>&1; then
    say 'building the image of the server'
    scratch
    server_root "$SCRATCH"
    tar -C "$SCRATCH" --owner=0 --group=0 --numeric-owner -c . | quiet_import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      -c 'ENV HOME=/root' -c 'WORKDIR /opt/vrcshift' -c 'CMD ["/var/lib/lab/bin/start"]' - "$SERVER_IMAGE"
    rm -rf "$SCRATCH"
    # Earlier ones that no lab uses any more.
    docker images -q --filter reference=opsh-lab-server --filter "before=$SERVER_IMAGE" | xargs -r docker rmi >/dev/null 2>&1 || true
  fi
  unlock
}
quiet_import() { docker import "$@" >/dev/null || die 'docker import failed' 'docker info'; }

# scratch: a fresh directory in $SCRATCH, removed at the end whatever happens.
scratch() {
  SCRATCH=$(mktemp -d "$LAB_BUILD/tmp/root.XXXXXX")
  chmod 755 "$SCRATCH"
  LAB_SCRATCH+=("$SCRATCH")
}

# product FILE WHAT FUNCTION: the tar of the tree the function makes.
product() {
  local file=$LAB_BUILD/images/$1 what=$2 make=$3
  [[ ! -s $file ]] || return 0
  say "building $what"
  scratch
  "$make" "$SCRATCH" || die "$what could not be built"
  rm -f "$LAB_BUILD/images/${1%%-*}"-*.tar
  tar -C "$SCRATCH" --owner=0 --group=0 --numeric-owner -cf "$file.part" .
  mv "$file.part" "$file"
  rm -rf "$SCRATCH"
}

# busybox_into ROOT APPLET…
busybox_into() {
  local root=$1 applet
  shift
  mkdir -p "$root/bin"
  cp "$LAB_BUILD/tools/busybox" "$root/bin/busybox"
  for applet; do ln -s busybox "$root/bin/$applet"; done
}

# What every release's image starts from.
base_root() {
  busybox_into "$1" sh env ls cat cp rm mv ln mkdir chmod chown grep sed head tail wc sort sleep id date ps kill printenv test wget nc
  mkdir -p "$1/etc" "$1/app"
  mkdir -m 1777 "$1/tmp"
  echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
  echo 'root:x:0:' >"$1/etc/group"
}

# The application's program under its three names, static, for a Dockerfile to copy.
program_root() {
  local target name
  command -v cargo >/dev/null || die 'cargo is not installed' 'install Rust from https://rustup.rs'
  target=$(rustc -vV | sed -n 's/^host: //p')
  (
    cd -- "$LAB_HERE/app"
    export CARGO_TARGET_DIR=$LAB_BUILD/cargo RUSTFLAGS='-C target-feature=+crt-static'
    unset CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER
    # The target is named so that build scripts and macros are not linked statically.
    quietly 'cargo build (of tests/lab/app)' cargo build --locked --release --target "$target"
  ) || return
  mkdir -p "$1/out"
  cp "$LAB_BUILD/cargo/$target/release/vrc-shift" "$1/out/server"
  for name in migrate batch; do cp "$1/out/server" "$1/out/$name"; done
}

# A real PostgreSQL out of this machine's own package and the libraries it is linked to.
db_root() {
  local root=$1 bin=/usr/lib/postgresql/15/bin lib=/usr/lib/postgresql/15/lib share=/usr/share/postgresql/15 name zone
  [[ -x $bin/postgres ]] || die "$bin/postgres is not there" 'apt-get install postgresql-15'
  busybox_into "$root" sh su env ls cat cp rm mv mkdir chmod chown grep head tail sleep id date ps kill printenv test
  mkdir -p "$root"/{etc,usr/lib,usr/lib64,usr/local/bin,run/postgresql,var/lib/postgresql/data} "$root$bin" "$root$lib" "$root$share"
  mkdir -m 1777 "$root/tmp"
  ln -s usr/lib "$root/lib"
  ln -s usr/lib64 "$root/lib64"
  ln -s /run "$root/var/run"
  for name in postgres pg_ctl psql pg_isready pg_dump pg_restore; do
    cp "$bin/$name" "$root$bin/"
    ln -s "$bin/$name" "$root/usr/local/bin/$name"
  done
  for name in plpgsql dict_snowball pg_stat_statements; do cp "$lib/$name.so" "$root$lib/"; done
  cp -r "$share"/. "$root$share/"
  rm -rf "$root$share/man" "$root$share/extension/"!(plpgsql*|pg_stat_statements*)
  for zone in UTC Etc/UTC Asia/Tokyo; do
    mkdir -p "$root/usr/share/zoneinfo/$(dirname "$zone")"
    cp -L "/usr/share/zoneinfo/$zone" "$root/usr/share/zoneinfo/$zone" 2>/dev/null || true
  done
  ldd "$root$bin"/* "$root$lib"/*.so | grep -o '/[^ ]*\.so[^ ]*' | grep -v ':$' | sort -u | while read -r name; do
    mkdir -p "$root$(dirname "$name")"
    cp -L "$name" "$root$name"
  done
  printf 'root:x:0:0::/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\npostgres:x:999:\n' >"$root/etc/group"
  install -m 755 "$LAB_HERE/server/db-entrypoint" "$root/usr/local/bin/db-entrypoint"
  cluster_into "$root/var/lib/postgresql/cluster" "$bin/initdb"
}

# An empty cluster, made once here instead of at every first start of a database. PostgreSQL refuses to work for root, and
# its own user may not be able to look into this directory, so it is made somewhere else.
cluster_into() {
  local where as=()
  where=$(mktemp -d)
  LAB_SCRATCH+=("$where")
  ((EUID != 0)) || { as=(setpriv --reuid=65534 --regid=65534 --clear-groups); chown 65534:65534 "$where"; }
  quietly initdb env -i -C "$where" PATH="$PATH" LC_ALL=C TZ=UTC "${as[@]}" "$2" -D "$where/cluster" --no-sync --username=postgres --wal-segsize=4 \
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C || return
  mkdir -p "$(dirname "$1")"
  cp -r "$where/cluster" "$1"
  rm -rf "$where"
  echo 'host all all all scram-sha-256' >>"$1/pg_hba.conf"
  # A practice database outlives its processes, not the machine: no need to wait for the disk.
  printf "listen_addresses = '*'\nunix_socket_directories = '/run/postgresql'\nfsync = off\n" >>"$1/postgresql.conf"
}

# The server: only /etc, the accounts and the lab's programs. Its /usr is this machine's, mounted read-only.
server_root() {
  local root=$1 dir
  mkdir -p "$root"/{etc/ssh,root,home,opt,srv,run/lock,run/sshd,proc,sys,dev,usr,var/lib/docker,var/log,var/empty,var/lib/lab/{bin,sbin,lib,seed,images}}
  chmod 700 "$root/root" "$root/var/lib/lab"
  chmod 1777 "$root/run/lock"
  mkdir -m 1777 "$root/tmp" "$root/var/tmp"
  for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done
  ln -s /run "$root/var/run"
  for dir in alternatives ld.so.conf ld.so.conf.d ld.so.cache protocols services os-release debian_version python3 python3.11 mke2fs.conf; do
    [[ ! -e /etc/$dir ]] || cp -a "/etc/$dir" "$root/etc/"
  done
  printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
  cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/bash
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
deploy:x:1000:1000:deploys releases:/home/deploy:/bin/bash
viewer:x:1001:1001:only looks:/home/viewer:/bin/bash
END
  printf 'root:x:0:\ntty:x:5:\nnogroup:x:65534:\ndocker:x:990:deploy\ndeploy:x:1000:\nviewer:x:1001:\n' >"$root/etc/group"
  printf '%s:*:19700:0:99999:7:::\n' root sshd nobody deploy viewer >"$root/etc/shadow"
  chmod 600 "$root/etc/shadow"
  printf '[safe]\n\tdirectory = *\n[advice]\n\tdetachedHead = false\n[init]\n\tdefaultBranch = main\n' >"$root/etc/gitconfig"
  cp "$LAB_HERE/server/sshd_config" "$root/etc/ssh/sshd_config"
  for dir in start setup ready state release wipe; do install -m 755 "$LAB_HERE/server/$dir" "$root/var/lib/lab/bin/$dir"; done
  cp "$LAB_BUILD/tools/sshd" "$root/var/lib/lab/sbin/sshd"
  cp "$LAB_BUILD/tools/lib"/* "$root/var/lib/lab/lib/"
}
