# makeWrapper ORIGINAL WRAPPER ARGUMENTS…, wrapProgram PROGRAM ARGUMENTS…: nixpkgs' own, as
# far as packages here use them.
# shellcheck shell=bash
makeWrapper() {
    local original=$1 wrapper=$2 flags=
    shift 2
    mkdir -p "$(dirname "$wrapper")"
    {
        echo "#!$(type -P bash)"
        while [ $# -gt 0 ]; do
            case $1 in
            --set) printf 'export %s=%q\n' "$2" "$3"; shift 3 ;;
            --set-default) printf 'export %s=${%s-%q}\n' "$2" "$2" "$3"; shift 3 ;;
            --unset) printf 'unset %s\n' "$2"; shift 2 ;;
            --prefix) printf 'export %s=%q${%s:+%q$%s}\n' "$2" "$4" "$2" "$3" "$2"; shift 4 ;;
            --suffix) printf 'export %s=${%s:+$%s%q}%q\n' "$2" "$2" "$2" "$3" "$4"; shift 4 ;;
            --run) printf '%s\n' "$2"; shift 2 ;;
            --add-flags) flags="$flags $2"; shift 2 ;;
            *) echo "makeWrapper: unknown argument $1" >&2; return 1 ;;
            esac
        done
        printf 'exec %q%s "$@"\n' "$original" "$flags"
    } >"$wrapper"
    chmod +x "$wrapper"
}

wrapProgram() {
    local hidden
    hidden=$(dirname "$1")/.$(basename "$1")-wrapped
    mv "$1" "$hidden"
    makeWrapper "$hidden" "$@"
}
