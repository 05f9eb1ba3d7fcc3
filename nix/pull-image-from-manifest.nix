{ lib, pkgs, baseAnnotations, runCommandLocal, runPull, stdenv, overridable }:

/* Pulls an image from a registry by its manifest, for `buildImage { fromImage = …; }`.

   The manifest, kept beside the Nix code, has every digest that Nix needs. Each layer is
   a store path of its own, which all images that have it share.

   The result has an attribute `getManifest`: a program that prints the manifest. It can
   be used before the file exists.

   Type: pullImageFromManifest :: AttrSet -> Derivation

   Example:
   # nix run .#base.getManifest > alpine.json
   pullImageFromManifest {
       imageName = "library/alpine";
       imageManifest = ./alpine.json;
   }
*/
lib.fix (self:
{
  # Name of the image in its registry.
  imageName
  # File with the manifest of a single image, not of an index.
, imageManifest ? null
  # The tag of the image whose manifest `getManifest` prints. Layers are pulled by digest.
, imageTag ? "latest"
  # The platform of the image in an index, by Go's names.
, os ? "linux"
, arch ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
  # True if the registry must have a valid certificate; false also allows plain HTTP.
, tlsVerify ? true
  # The largest size of an unpacked layer of the image, in bytes or as a string such as "256G", and the largest
  # ratio of unpacked to packed size, beyond 512 MiB; null for the defaults, "128G" and 100.
, maxUnpacked ? null
, maxRatio ? null
  # The host of the registry, with a port if it needs one.
, registryUrl ? "registry-1.docker.io"
}@arguments: overridable "pullImageFromManifest" self arguments (
  let
    inherit (pkgs.buildPackages) jq skopeo;
    repository = "docker://${registryUrl}/${imageName}";
    reference = lib.escapeShellArg "${repository}:${imageTag}";
    tls = "--tls-verify=${lib.boolToString tlsVerify}";

    complain = problem: throw
      "stowage.pullImageFromManifest: `imageManifest` ${problem}; `nix run` its attribute `getManifest` to have one printed";
    manifest =
      let
        parsed = lib.importJSON imageManifest;
      in
      if imageManifest == null then complain "is missing"
      else if !(parsed ? config && parsed ? layers) then
        complain "must be the manifest of one image, with `config` and `layers`"
      else parsed;

    blobOf = { digest, ... }:
      let
        hex = lib.removePrefix "sha256:" digest;
      in
      {
        inherit hex;
        file = runPull {
          name = hex;
          what = "blob ${digest} of ${registryUrl}/${imageName}";
          byHand = "skopeo copy ${reference} dir:image && mv image/${hex} ${hex}";
          outputHashMode = "flat";
          attributes = {
            outputHashAlgo = "sha256";
            outputHash = hex;
          };
          command = ''
            skopeo --insecure-policy --tmpdir="$TMPDIR" \
              --override-os ${lib.escapeShellArg os} --override-arch ${lib.escapeShellArg arch} \
              layers ${tls} "''${authentication[@]}" ${reference} ${lib.escapeShellArg digest}
            mv layers-*/${hex} $out
          '';
        };
      };
    # An image may have a layer twice.
    blobs = lib.unique (map ({ digest, ... }: { inherit digest; }) ([ manifest.config ] ++ manifest.layers));

    getManifest = pkgs.buildPackages.writeShellScriptBin "get-manifest" ''
      set -euo pipefail
      inspect() { ${skopeo}/bin/skopeo inspect --raw ${tls} "$1"; }
      manifest=$(inspect ${reference})
      digest=$(printf %s "$manifest" | ${jq}/bin/jq --raw-output \
        --arg os ${lib.escapeShellArg os} --arg arch ${lib.escapeShellArg arch} '
        if .manifests then
          [.manifests[] | select(.platform.os == $os and .platform.architecture == $arch)]
          | sort_by(.platform.variant // "") | .[0].digest // "none"
        else "" end')
      case $digest in
      "") printf %s "$manifest" ;;
      none) echo ${lib.escapeShellArg "error: ${registryUrl}/${imageName}:${imageTag} has no image for ${os}/${arch}"} >&2; exit 1 ;;
      *) inspect ${lib.escapeShellArg repository}@"$digest" ;;
      esac
    '';
  in
  runCommandLocal (lib.strings.sanitizeDerivationName "docker-image-${imageName}")
  {
    passthru = {
      inherit getManifest maxUnpacked maxRatio;
      # The digest of the manifest is not known, since the file may have been reformatted.
      baseAnnotations = baseAnnotations { imageName = "${registryUrl}/${imageName}"; tag = imageTag; digest = null; };
    };
  } ''
    mkdir $out
    cd $out
    ln -s ${lib.escapeShellArg (builtins.seq manifest "${imageManifest}")} manifest.json
    ${lib.concatMapStrings (descriptor: let blob = blobOf descriptor; in ''
      ln -s ${blob.file} ${blob.hex}
    '') blobs}
  ''
)
)
