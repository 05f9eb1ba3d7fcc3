# What `stdenv` does in every build: attributes to variables, PATH, and then the command or
# the phases.
# shellcheck shell=bash disable=SC2154 # the variables are the derivation's attributes
if [ -e "$NIX_BUILD_TOP/.attrs.sh" ]; then
    # Nix 2.8 has these name files outside of the sandbox.
    export NIX_ATTRS_SH_FILE=$NIX_BUILD_TOP/.attrs.sh NIX_ATTRS_JSON_FILE=$NIX_BUILD_TOP/.attrs.json
    # shellcheck disable=SC1090
    . "$NIX_ATTRS_SH_FILE"
    for __name in "${!outputs[@]}"; do export "$__name=${outputs[$__name]}"; done
    for __name in "${!env[@]}"; do export "$__name=${env[$__name]}"; done
    unset __name
fi

# No variable but local ones: every other name may be the derivation's.
add_inputs() {
    local input
    PATH=$initialPath
    # A list or, without structured attributes, words.
    # shellcheck disable=SC2068
    for input in ${buildInputPaths[@]:-}; do
        PATH=$input/bin:$PATH
        # Functions for builds, such as makeWrapper's.
        # shellcheck disable=SC1091
        if [ -f "$input/nix-support/setup-hook" ]; then . "$input/nix-support/setup-hook"; fi
    done
}
add_inputs
export PATH HOME=/homeless-shelter

runHook() { if declare -F "$1" >/dev/null; then "$1"; else eval "${!1:-}"; fi; }

unpackPhase() {
    [ -n "${src:-}" ] || return 0
    if [ -d "$src" ]; then
        cp -r "$src" source
        chmod -R u+w source
    else
        mkdir source
        tar -xf "$src" -C source
    fi
    cd source || return
}
# shellcheck disable=SC2068 # a list or, without structured attributes, words
patchPhase() { local file; for file in ${patches[@]:-}; do patch -p1 <"$file"; done; }
configurePhase() { :; }
buildPhase() { :; }
installPhase() { :; }
fixupPhase() {
    local output
    # shellcheck disable=SC2048 # names have no spaces
    for output in ${outputs[*]:-out}; do
        if [ -n "${dontPatchShebangs:-}" ]; then continue; fi
        # The names of variables or, with structured attributes, the paths.
        if [[ $output != /* ]]; then output=${!output}; fi
        if [ -e "$output" ]; then patchShebangs "$output"; fi
    done
}

# patchShebangs PATH…: `#!/usr/bin/env perl` becomes PATH's perl, of this build.
patchShebangs() {
    local file line interpreter program
    while IFS= read -r -d '' file; do
        IFS= read -r line <"$file" || continue
        [[ $line == '#!'* && $line != "#!$NIX_STORE"* && $line != "#! $NIX_STORE"* ]] || continue
        read -r interpreter program _ <<<"${line#??}"
        [ "${interpreter##*/}" = env ] || program=${interpreter##*/}
        interpreter=$(type -P "$program") || continue
        sed -i -E "1s|^#! *[^ ]*(env +[^ ]+)?|#!$interpreter|" "$file"
    done < <(find "$@" -type f -perm -100 -print0)
}

# substitute INPUT OUTPUT (--replace-fail|--replace-warn|--replace|--replace-quiet OLD NEW |
# --subst-var NAME | --subst-var-by NAME VALUE)…: literal text, as in nixpkgs.
substitute() {
    local input=$1 output=$2 text old new
    shift 2
    text=$(cat "$input" && echo x)
    text=${text%x}
    while [ $# -gt 0 ]; do
        case $1 in
        --replace*) old=$2 new=$3 ;;
        --subst-var) old=@$2@ new=${!2-} ;;
        --subst-var-by) old=@$2@ new=$3 ;;
        *) echo "substitute: unknown argument $1" >&2; return 1 ;;
        esac
        if [[ $text != *"$old"* && $1 == --replace-fail ]]; then
            echo "substitute: $input does not contain $old" >&2
            return 1
        fi
        text=${text//"$old"/"$new"}
        if [ "$1" = --subst-var ]; then shift 2; else shift 3; fi
    done
    # Into the same file: what is executable stays so.
    printf '%s' "$text" >"$output"
}

# substituteInPlace FILE… (--replace-fail OLD NEW)…
substituteInPlace() {
    local file files=()
    while [ $# -gt 0 ] && [[ $1 != --* ]]; do files+=("$1") && shift; done
    for file in "${files[@]}"; do substitute "$file" "$file" "$@"; done
}

# phase NAME: an attribute of that name wins over the function above.
phase() {
    runHook "pre${1^}"
    if [ -n "${!1:-}" ]; then eval "${!1}"; else "$1"; fi
    runHook "post${1^}"
}

if [ -n "${buildCommandPath:-}" ]; then
    # shellcheck disable=SC1090
    . "$buildCommandPath"
elif [ -n "${buildCommand:-}" ]; then
    eval "$buildCommand"
else
    for __phase in ${phases:-unpackPhase patchPhase configurePhase buildPhase installPhase fixupPhase}; do
        [ "$__phase" != unpackPhase ] || [ -z "${dontUnpack:-}" ] || continue
        phase "$__phase"
    done
fi
