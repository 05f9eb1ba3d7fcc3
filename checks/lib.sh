# Shell functions shared by the scripts in this directory and in benches/. Sourced, not run.
# shellcheck shell=bash

# The cache of things that are made once: Debian packages, tools, the package set's flake.
stowage_cache=${STOWAGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stowage}

# The directory of these scripts.
checks=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

as_root() { "$checks/as-root" "$@"; }

# Succeeds if this user can build with Nix: as root, through a daemon, or in a store of the
# user's own. Without a daemon the store belongs to root, even before it exists.
builds_without_root() {
    [ "$(id -u)" -eq 0 ] || [ -S /nix/var/nix/daemon-socket/socket ] || [ -w /nix/var/nix/db ]
}

# Fails if this user can't become root to build with Nix, before anything long begins.
require_nix_access() {
    builds_without_root || as_root --check 'Nix, without a daemon,'
}

# Fails if Rust is missing, which these scripts do not install.
require_rust() {
    command -v cargo >/dev/null || {
        cat >&2 <<'END'
error: Rust is not installed: there is no cargo on PATH

hint: install it with rustup, or add ~/.cargo/bin to PATH
END
        return 1
    }
}

# install_tools PROGRAM:PACKAGE[,PACKAGE]…: installs by apt the packages of the programs that
# are missing.
# Debian has some programs in directories that are not on every user's PATH.
install_tools() {
    local tool packages missing=()
    for tool in "$@"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%:*}" >/dev/null || {
            IFS=, read -ra packages <<<"${tool#*:}" && missing+=("${packages[@]}")
        }
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    as_root --check "to install ${missing[*]}"
    echo "installing ${missing[*]}" >&2
    mkdir -p "$stowage_cache"
    # Take a lock: apt does not wait for another apt that updates its lists.
    (
        flock 9
        # After an interrupted installation, apt refuses to work before this command. A service
        # that is started must not inherit the lock.
        as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure --pending >&2 9>&-
        apt_get_quietly update 9>&-
        apt_get_quietly install --yes --no-install-recommends "${missing[@]}" 9>&-
    ) 9>"$stowage_cache/apt.lock"
}

# Runs apt-get, and shows its output only if it fails.
apt_get_quietly() {
    local output
    output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get "$@" 2>&1) || {
        echo "$output" >&2
        echo "error: apt-get $* failed" >&2
        return 1
    }
}

# Prints the mirror from which this machine's apt gets Debian's packages.
debian_mirror() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL) $(RELEASE)' 'Created-By: Packages' |
        awk '$2 == "Debian" && $3 !~ /-/ { print $1; exit }')
    if [ -z "$mirror" ]; then
        echo 'error: apt on this machine has no mirror of Debian, or no lists yet' >&2
        printf '\nhint: see /etc/apt/sources.list.d, and run apt-get update\n' >&2
        return 1
    fi
    echo "$mirror"
}

# use_release DIRECTORY RELEASE: makes `apt_of_release` read the packages of another Debian release,
# as if nothing were installed, and keep its downloads in the directory.
use_release() {
    release_directory=$1
    mkdir -p "$1"/apt/{lists,cache/archives}/partial
    local mirror
    mirror=$(debian_mirror)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $2 main" >"$1/apt/sources.list"
    apt_of_release update >&2
}

apt_of_release() {
    apt-get --quiet=2 \
        --option Dir::Etc::sourcelist="$release_directory/apt/sources.list" --option Dir::Etc::sourceparts=- \
        --option Dir::State="$release_directory/apt" --option Dir::State::status=/dev/null \
        --option Dir::Cache="$release_directory/apt/cache" --option Debug::NoLocking=1 \
        --option APT::Sandbox::User=root --option APT::Architectures=amd64 "$@"
}

# unpack_of_release DIRECTORY RELEASE PACKAGE…: downloads packages of another Debian release, and unpacks
# them together into DIRECTORY/root.new.
unpack_of_release() {
    local directory=$1 release=$2 file
    shift 2
    use_release "$directory" "$release"
    rm -rf "$directory/debs" "$directory/root.new"
    mkdir "$directory/debs" "$directory/root.new"
    (cd "$directory/debs" && apt_of_release download "$@" >&2)
    for file in "$directory"/debs/*.deb; do dpkg-deb --extract "$file" "$directory/root.new"; done
}

# unpack_with_libraries DIRECTORY RELEASE PACKAGE…: downloads packages of another Debian release and the
# packages that they depend on, and unpacks them together into DIRECTORY/root.
unpack_with_libraries() {
    local directory=$1 release=$2 file
    use_release "$directory" "$release"
    apt_of_release --yes --no-install-recommends --download-only install "${@:3}" >&2
    rm -rf "$directory/root.new"
    # Links to /usr, as in Debian: packages have files in both places.
    mkdir -p "$directory"/root.new/usr/{bin,sbin,lib,lib64}
    for file in bin sbin lib lib64; do ln -s "usr/$file" "$directory/root.new/$file"; done
    for file in "$directory"/apt/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink -C "$directory/root.new"
    done
    rm -rf "$directory/root" "$directory/apt/cache/archives"
    mv "$directory/root.new" "$directory/root"
}

# Installs the formatter and the linter of Nix code, which Debian lacks, from crates.io, once.
install_nix_linters() {
    local tools=$stowage_cache/tools
    export PATH=$tools/bin:$PATH
    local tool
    for tool in nixpkgs-fmt@1.3.0 deadnix@1.3.1; do
        command -v "${tool%@*}" >/dev/null ||
            (cd / && cargo install --quiet --debug --locked --root "$tools" "$tool")
    done
}

# Builds the program for the tests, and prints its path. On a terminal cargo shows its progress,
# since the first build takes minutes.
build_stowage() {
    local quiet=()
    [ -t 2 ] || quiet=(--quiet)
    (cd "$checks/.." && cargo build --locked "${quiet[@]}" >&2) && stowage_binary debug
}

# stowage_binary PROFILE: prints the path of the program that cargo built last, with the profile
# `debug` or `release`.
stowage_binary() {
    local target candidate newest=
    target=${CARGO_TARGET_DIR:-$checks/../target}
    # .cargo/config.toml names a target, which adds a directory to the path.
    for candidate in "$target"/*/"$1"/stowage "$target/$1/stowage"; do
        if [ -x "$candidate" ] && [ "$candidate" -nt "$newest" ]; then newest=$candidate; fi
    done
    realpath "$newest"
}

# Starts a Docker daemon on a socket of its own, and makes `docker` use it, until this script
# ends.
start_private_docker() {
    local state
    state=$(mktemp -d)
    echo "starting a Docker daemon of our own" >&2
    as_root env PATH="$PATH:/usr/sbin:/sbin" dockerd \
        --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/pid" \
        --host "unix://$state/socket" --group "$(id -gn)" \
        --iptables=false --ip6tables=false --bridge=none >"$state/log" 2>&1 &
    # shellcheck disable=SC2064 # the directory is that of now
    trap "stop_private_docker '$state'" EXIT
    export DOCKER_HOST=unix://$state/socket
    local try
    for try in {1..300}; do
        if docker version >/dev/null 2>&1; then return; fi
        if [ "$try" -gt 10 ] && [ -z "$(jobs -r)" ]; then break; fi
        sleep 0.1
    done
    cat "$state/log" >&2
    echo 'error: dockerd does not answer' >&2
    return 1
}

stop_private_docker() {
    local state=$1 pid
    if pid=$(cat "$state/pid" 2>/dev/null); then
        as_root kill "$pid"
        wait
    fi
    # If the file system above is shared, the daemon leaves its directory mounted on itself.
    as_root umount "$state/data" 2>/dev/null || true
    as_root rm -rf "$state"
}
