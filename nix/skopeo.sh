# shellcheck shell=bash disable=SC2154
# skopeo, which also takes images of this library, as `nix:PATH`: `skopeo copy nix:PATH TARGET` runs `stowage copy`.
# All other commands run skopeo itself.
#
# The text before this file sets the variables skopeo, stowage and no_credentials.
set -euo pipefail

fail() {
    echo "error: skopeo: $1" >&2
    if [ $# -gt 1 ]; then printf '\nhint: %s\n' "$2" >&2; fi
    exit 1
}

names_image=false
for argument; do
    if [[ $argument == nix:* ]]; then names_image=true; fi
done
if [ "$names_image" = false ]; then exec "$skopeo" "$@"; fi

# Options, by skopeo's names, up to version 1.22 (skopeo(1), skopeo-copy(1)).

# Options that are accepted and ignored. They have no effect on an image from the store, which has no signatures, registry
# or credentials, or they ask for what stowage always does: it sends layers as recorded, and repeats failed requests.
without_value=' --debug --insecure-policy --dest-oci-accept-uncompressed-layers
    --dest-precompute-digests --preserve-digests --remove-signatures --src-no-creds '
with_value=' --image-parallel-copies --override-arch --override-os --override-variant
    --registries.d --retry-delay --src-authfile --src-cert-dir --src-creds --src-daemon-host
    --src-password --src-registry-token --src-shared-blob-dir --src-username --tmpdir --user-agent-prefix '
flags_with_optional_value=' --src-tls-verify --dest-tls-verify '
# Options that stowage has by the same name.
same_without_value=' --all -a --quiet -q '
same_with_value=' --authfile --dest-authfile --dest-cert-dir --dest-creds --digestfile --retry-times '

command=
arguments=() # besides the command
options=()   # for stowage
user=
password=

while [ $# -gt 0 ]; do
    name=$1
    shift
    case $name in
    --)
        arguments+=("$@")
        break
        ;;
    -?*) ;;
    *)
        if [ -z "$command" ]; then command=$name; else arguments+=("$name"); fi
        continue
        ;;
    esac

    value=
    has_value=false
    if [[ $name == --*=* ]]; then
        value=${name#*=} name=${name%%=*} has_value=true
    elif [[ $name == -f?* ]]; then
        value=${name#-f} name=-f has_value=true
    fi
    # take_value: the value is the next argument, unless it came with the name.
    take_value() { [ "$has_value" = true ] || fail "\`$name\` wants a value"; }
    case " $with_value $same_with_value --format -f --dest-username --dest-password --dest-daemon-host --multi-arch --policy " in
    *[[:space:]]"$name"[[:space:]]*)
        if [ "$has_value" = false ] && [ $# -gt 0 ]; then value=$1 has_value=true && shift; fi
        take_value
        ;;
    esac

    case $name in
    -f | --format)
        case $value in
        oci | v2s2) options+=(--format "$value") ;;
        *) fail "\`--format $value\`: stowage writes \`oci\` and \`v2s2\`" ;;
        esac
        ;;
    --dest-username) user=$value ;;
    --dest-password) password=$value ;;
    --dest-no-creds) options+=(--authfile "$no_credentials") ;;
    --dest-daemon-host) export DOCKER_HOST=$value ;;
    --multi-arch)
        case $value in
        all | system) ;;
        *) fail "\`--multi-arch $value\`: stowage copies an image, or an index with all its images" ;;
        esac
        ;;
    --policy) fail "\`--policy\`: images of the store have no signatures, and a policy can't be followed" "leave it out, or give \`--insecure-policy\`" ;;
    --dest-compress | --dest-compress-format | --dest-compress-level | --dest-force-compress-format | --dest-decompress)
        fail "\`$name\`: how layers are compressed is recorded when the image is built" "give \`buildImage\` a \`compression\`: \"gzip\", \"zstd\" or \"none\""
        ;;
    *)
        case " $without_value $flags_with_optional_value $same_without_value $with_value $same_with_value " in
        *[[:space:]]"$name"[[:space:]]*) ;;
        *) fail "\`$name\` is none of the options that a copy from \`nix:\` has" "\`stowage copy --help\` lists stowage's own" ;;
        esac
        case $same_with_value in *" $name "*) options+=("$name" "$value") ;; esac
        case $same_without_value in *" $name "*) options+=("$name") ;; esac
        if [ "$name" = --dest-tls-verify ]; then
            if [ "$has_value" = true ]; then options+=("$name=$value"); else options+=("$name"); fi
        fi
        ;;
    esac
done
if [ -n "$user" ]; then options+=(--dest-creds "$user:$password"); fi

[ "$command" = copy ] || fail "\`$command\`: of images by \`nix:\` there is only \`copy\`" \
    "copy it first, or ask stowage: \`stowage explain\`, \`stowage manifest\`"
[ "${#arguments[@]}" -eq 2 ] || fail "\`copy\` wants an image and a target, and has ${#arguments[@]} of them"
image=${arguments[0]} target=${arguments[1]}
[[ $target != nix:* ]] || fail "\`$target\`: nothing is copied to \`nix:\`" "\`nix:\` is for the image, which comes first"
[[ $image == nix:* ]] || fail "\`$image\` is no image by \`nix:\`"

# The script that streams an image names its image spec.
file=${image#nix:}
[ -e "$file" ] || fail "$file does not exist"
read -r -n 2 start <"$file" || true
if [ "${start-}" = '#!' ]; then
    spec=$(sed -n 's/^# spec: //p' "$file")
    [ -n "$spec" ] || fail "$file is a script, but none of stowage's that stream an image"
    file=$spec
fi
exec "$stowage" copy "${options[@]}" "$file" "$target"
