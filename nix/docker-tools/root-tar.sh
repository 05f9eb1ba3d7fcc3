# shellcheck shell=bash
# Runs commands as a simulated root, in a directory that they may see as `/`, and writes the
# resulting files to a tar.
#
# fakeroot(1) records the owners and modes that commands set, and reports them to tar. If a
# command needs the directory to be `/`, it runs in a user namespace of its own, in which every user
# may chroot(2). The store, /dev and /proc are mounted there, in a mount namespace that ends with it.
#
# From the derivation: copyToRoot, rsyncFlag, writable, extraCommands, fakeRootCommands, chrooted,
# runAsRoot, flatten, uid, gid, out.
set -eu -o pipefail

fail() {
    echo "error: stowage.dockerTools: $*" >&2
    exit 1
}

# Lists every entry below the directory, with all attributes that show a change. The time of a
# directory is left out, since it changes with the entries.
list() {
    find . -mindepth 1 \( -type d -printf '%y %m %U %G\t%P\0' -o -printf '%y %m %U %G %s %T@ %C@ %i\t%P\0' \) |
        LC_ALL=C sort -z
}

names() {
    sed -z 's/^[^\t]*\t//' | LC_ALL=C sort -z
}

# chrooted_run COMMAND…: runs a command with this directory as `/`.
chrooted_run() {
    local made=() directory
    for directory in dev proc ".${NIX_STORE%/*}" ".$NIX_STORE"; do
        if [ ! -d "$directory" ]; then
            mkdir "$directory"
            made=("$directory" "${made[@]}")
        fi
    done
    # shellcheck disable=SC2016
    unshare --mount bash -euc '
        mount --rbind /dev dev
        mount --rbind /proc proc
        mount --rbind "$NIX_STORE" ".$NIX_STORE"
        export HOME=/root
        exec chroot . "$@"
    ' bash "$@"
    for directory in "${made[@]}"; do
        rmdir --ignore-fail-on-non-empty "$directory"
    done
}

# step NAME COMMAND…: runs commands, and names them if they fail.
step() {
    local name=$1 status=0
    shift
    # `||` after the command would turn off `-e` within it.
    set +e
    (
        set -e
        "$@"
    )
    status=$?
    set -e
    [ "$status" = 0 ] || fail "\`$name\` failed with exit status $status"
}

evaluate() {
    set +u
    eval "$1"
}

as_fake_root() {
    mkdir root
    cd root
    : >../before
    if [ -n "$flatten" ]; then
        $flatten | tar --extract --preserve-permissions --same-owner --xattrs --xattrs-include='*'
        list >../before
    fi
    local item
    for item in $copyToRoot; do
        rsync -a"$rsyncFlag" --chown=0:0 "$item"/ ./
    done
    chmod ug+w .
    if [ "$writable" = true ]; then
        find . -type d -exec chmod u+w {} +
    fi
    if [ -n "$runAsRoot" ]; then
        step runAsRoot chrooted_run "$runAsRoot"
    fi
    if [ -n "$extraCommands" ]; then
        step extraCommands evaluate "$extraCommands"
    fi
    if [ "$chrooted" = true ]; then
        step fakeRootCommands chrooted_run bash -ec "$fakeRootCommands"
    elif [ -n "$fakeRootCommands" ]; then
        step fakeRootCommands evaluate "$fakeRootCommands"
    fi
    list >../after
    pack
}

# Writes the entries that have changed since `before`, and a whiteout for each removed one
# (image-spec, layer.md).
pack() {
    LC_ALL=C comm -z -13 ../before ../after | names >../changed
    local name parent
    names <../before >../names-before
    names <../after >../names-after
    while IFS= read -r -d '' name; do
        case ${name##*/} in
        .wh.*) fail "/$name has a name that would delete files in an image: names beginning with \`.wh.\` are whiteouts" ;;
        esac
    done <../changed
    while IFS= read -r -d '' name; do
        parent=$(dirname -- "$name")
        # The entries of a removed directory need no whiteouts of their own.
        if [ -d "$parent" ] && [ ! -L "$parent" ]; then
            : >"$parent/.wh.$(basename -- "$name")"
            printf '%s/.wh.%s\0' "$parent" "$(basename -- "$name")" | sed -z 's,^\./,,' >>../changed
        fi
    done < <(LC_ALL=C comm -z -23 ../names-before ../names-after)
    # Add the parent directories too: a tool that unpacks a layer gives a missing one any attributes.
    while IFS= read -r -d '' name; do
        while [[ $name == */* ]]; do
            name=${name%/*}
            printf '%s\0' "$name"
        done
    done <../changed >../parents
    LC_ALL=C sort -zu ../changed ../parents >../packed
    while IFS= read -r -d '' name; do
        if [ -b "$name" ] || [ -c "$name" ]; then
            fail "/$name is a device: containers get theirs from what runs them"
        fi
    done <../packed
    local owner=(--owner=0 --group=0)
    if [ -n "$runAsRoot$fakeRootCommands" ]; then
        owner=()
    elif [ "$uid:$gid" != 0:0 ]; then
        owner=(--owner="$uid" --group="$gid")
    fi
    # Every option that may affect the bytes is set.
    tar --create --file="$out" --null --no-recursion --files-from=../packed --hard-dereference \
        --format=posix --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
        --xattrs --xattrs-include='*' --numeric-owner "${owner[@]}" --mtime=@1
}

if [ "${1-}" = as_fake_root ]; then
    as_fake_root
    exit
fi

namespace=()
if [ -n "$runAsRoot" ] || [ "$chrooted" = true ]; then
    namespace=(unshare --user --map-root-user --mount)
    "${namespace[@]}" true || fail "\`runAsRoot\` and \`enableFakechroot\` need user namespaces, which this machine" \
        "keeps from builders: see the settings user.max_user_namespaces, kernel.unprivileged_userns_clone" \
        "(Debian) and kernel.apparmor_restrict_unprivileged_userns (Ubuntu) of sysctl"
fi
# The system would only say no.
export FAKEROOTDONTTRYCHOWN=1
"${namespace[@]}" fakeroot -- bash "${BASH_SOURCE[0]}" as_fake_root
