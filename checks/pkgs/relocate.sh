# Turns an unpacked Debian package ($src) into a store path ($out) that runs where nothing is
# in /usr and /lib. $needs are the packages it depends on, $interpreter the ELF interpreter.
# shellcheck shell=bash disable=SC2154 # the variables are the derivation's attributes

merge_usr() {
    local directory
    mkdir -p "$out"
    for directory in usr bin sbin lib lib64 etc var; do
        [ -d "$src/$directory" ] || continue
        case $directory in
        usr) cp -a "$src/usr/." "$out" ;;
        *) cp -a "$src/$directory" "$out" ;;
        esac
        chmod -R u+w "$out"
    done
    # As in nixpkgs: all programs are in bin/, and sbin/ is a link to it.
    if [ -d "$out/sbin" ]; then
        mkdir -p "$out/bin"
        local program
        for program in "$out"/sbin/*; do
            [ -e "$program" ] || [ -L "$program" ] || continue
            # Some are only links to the one in bin.
            [ -e "$out/bin/${program##*/}" ] || mv "$program" "$out/bin"
        done
        rm -r "$out/sbin"
        ln -s bin "$out/sbin"
    fi
    # lib64 has the loader alone, as a link to /lib.
    rm -rf "${out:?}"/lib64 "$out"/share/{doc,doc-base,lintian,locale,bug,bash-completion,zsh}
}

# The packages that this one can use: itself, and all below.
find_closure() {
    local need
    for need in $(cat "$1/nix-support/debian-needs" 2>/dev/null); do
        case " $closure " in
        *" $need "*) ;;
        *) closure="$closure $need" && find_closure "$need" ;;
        esac
    done
}

# Links to absolute paths, and to other packages' files, lead into the store.
relocate_links() {
    local link target package
    find "$out" -type l | while read -r link; do
        target=$(readlink "$link")
        case $target in
        /nix/store/*) continue ;;
        /usr/*) target=${target#/usr/} ;;
        /*) target=${target#/} ;;
        *)
            [ ! -e "$link" ] || continue
            target=$(dirname "${link#"$out"/}")/$target
            ;;
        esac
        for package in $out $closure; do
            if [ -e "$package/$target" ]; then
                ln -sfn "$package/$target" "$link"
                break
            fi
        done
    done
}

# The directories among the closure's that hold the libraries that an ELF file needs.
library_path() {
    local file=$1 own=$2 library package directory path=
    for library in $(patchelf --print-needed "$file"); do
        for package in $out $closure; do
            for directory in $package/lib/$triplet $package/lib $own; do
                [ -e "$directory/$library" ] || continue
                case ":$path:" in *":$directory:"*) ;; *) path=$path${path:+:}$directory ;; esac
                break 2
            done
        done
    done
    echo "$path"
}

relocate_programs() {
    local file own path
    find "$out" -type f | while read -r file; do
        [ "$(head -c 4 "$file" | tr -d '\0')" = "$(printf '\177ELF')" ] || continue
        own=$(patchelf --print-rpath "$file" 2>/dev/null) || continue # static, or an object file
        # A package's private libraries, such as /usr/lib/nix.
        own=$(echo "$own" | tr : ' ' | sed "s|/usr/|$out/|g")
        path=$(library_path "$file" "$own")
        [ -n "$path" ] || continue
        if patchelf --print-interpreter "$file" >/dev/null 2>&1; then
            # DT_RPATH, not DT_RUNPATH: the loader follows only the former for what libc
            # itself loads, such as libgcc_s when a thread ends.
            patchelf --set-interpreter "$interpreter" --force-rpath --set-rpath "$path" "$file"
        else
            patchelf --set-rpath "$path" "$file"
        fi
    done
}

# `#!/usr/bin/perl` becomes the closure's perl, as nixpkgs' patchShebangs has it.
relocate_scripts() {
    local file line interpreter program package
    find "$out" -type f -perm -100 | while read -r file; do
        [ "$(head -c 2 "$file" | tr -d '\0')" = '#!' ] || continue
        line=$(head -n 1 "$file")
        interpreter=$(echo "${line#??}" | awk '{print $1}')
        program=${interpreter##*/}
        if [ "$program" = env ]; then program=$(echo "$line" | awk '{print $2}'); fi
        for package in $out $closure $default_shell; do
            [ "$program" != sh ] || package=$default_shell
            if [ -x "$package/bin/$program" ]; then
                sed -i "1s|^#! *[^ ]*\( $program\)\{0,1\}|#!$package/bin/$program|" "$file"
                break
            fi
        done
    done
}

merge_usr
mkdir -p "$out/nix-support"
echo "$needs" >"$out/nix-support/debian-needs"
eval "$fixup"
if [ -n "$interpreter" ]; then
    closure=
    default_shell=$(dirname "$(dirname "$(type -P bash)")")
    find_closure "$out"
    relocate_links
    relocate_programs
    relocate_scripts
fi
# The true references are in the files by now: the dependencies as Debian has them would
# make references of what is not used.
rm "$out/nix-support/debian-needs"
rmdir --ignore-fail-on-non-empty "$out/nix-support" 2>/dev/null || rmdir "$out/nix-support"
