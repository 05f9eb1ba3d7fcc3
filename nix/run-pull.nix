{ lib, pkgs, cacert, runCommand }:

let
  # An image that was made by Nix names store paths, of which some may be inputs of the derivation that pulls the
  # image. Only Nix 2.14 and newer can be told to take them for text.
  discardsReferences = lib.versionAtLeast builtins.nixVersion "2.14";
in
# A derivation with a known hash, whose command pulls an image or a blob of it to `$out`.
{ name
  # The name of what is pulled, for messages.
, what
  # Commands that pull the same to a file or directory `name`, for people.
, byHand
  # Commands that pull to `$out`. `"${authentication[@]}"` are the options of skopeo and stowage for credentials.
, command
  # "flat" for a file, "recursive" for a directory.
, outputHashMode
  # Other attributes of the derivation.
, attributes
}:
runCommand name
  ({
    nativeBuildInputs = [ pkgs.buildPackages.skopeo ];
    env.SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
    impureEnvVars = lib.fetchers.proxyImpureEnvVars;
    __structuredAttrs = true;
    unsafeDiscardReferences.out = true;
    inherit outputHashMode;
  } // lib.optionalAttrs (!discardsReferences) {
    exportReferencesGraph.inputs = [ pkgs.buildPackages.skopeo cacert ] ++ pkgs.stdenv.initialPath;
  } // attributes) ''
  authentication=()
  if [ -f /etc/skopeo/auth.json ]; then authentication=(--authfile /etc/skopeo/auth.json); fi
  ${command}
  ${lib.optionalString (!discardsReferences) ''
    # The attributes name the inputs and the output. References are found by their hash parts.
    grep --only-matching "$NIX_STORE/[0-9a-z]\{32\}" "$NIX_BUILD_TOP/.attrs.json" | sed "s|.*/||" | sort --unique >"$TMPDIR/hash-parts"
    if found=$(grep --recursive --text --only-matching --no-filename --fixed-strings --file="$TMPDIR/hash-parts" "$out"); then
      inputs=("$NIX_STORE/$(head --lines=1 <<<"$found")"*)
      echo "error:" ${lib.escapeShellArg what} "names ''${inputs[0]}, which is also an input of the derivation that pulls it:" \
        ${lib.escapeShellArg "Nix ${builtins.nixVersion} refuses that"} >&2
      echo >&2
      printf '%s\n' ${lib.escapeShellArg ''
        hint: use Nix 2.14 or newer; or pull it by hand, after which Nix has it:
          ${byHand}
          nix-store --add-fixed ${lib.optionalString (outputHashMode == "recursive") "--recursive "}sha256 ${lib.escapeShellArg name}''} >&2
      exit 1
    fi
  ''}
''
