# What `stdenv` does in every build: attributes to variables, PATH, and then the command or
# the phases.
# shellcheck shell=bash disable=SC2154 # the variables are the derivation's attributes
if [ -e "$NIX_BUILD_TOP/.attrs.sh" ]; then
    # Nix 2.8 has these name files outside of the sandbox.
    export NIX_ATTRS_SH_FILE=$NIX_BUILD_TOP/.attrs.sh NIX_ATTRS_JSON_FILE=$NIX_BUILD_TOP/.attrs.json
    # shellcheck disable=SC1090
    . "$NIX_ATTRS_SH_FILE"
    for __output in "${!outputs[@]}"; do export "$__output=${outputs[$__output]}"; done
    unset __output
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
patchPhase() { local p; for p in ${patches:-}; do patch -p1 <"$p"; done; }
configurePhase() { :; }
buildPhase() { :; }
installPhase() { :; }
fixupPhase() { :; }

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
