{ lib, pkgs, stdenv, baseAnnotations, runPull, overridable }:

/* An image of a registry, as an archive. The arguments and the hash are nixpkgs':
   what it pins can stay as it is.

   Type: pullImage :: AttrSet -> Derivation
*/
let fixName = builtins.replaceStrings [ "/" ":" ] [ "-" "-" ];
in
lib.fix (self:
{ imageName
, imageDigest
  # One of these: an SRI hash, or a SHA-256 in any of Nix's notations.
, hash ? null
, sha256 ? null
, outputHash ? null
, outputHashAlgo ? null
, os ? "linux"
, arch ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
  # Name and tag under which the image is loaded.
, finalImageName ? imageName
, finalImageTag ? "latest"
, tlsVerify ? true
, name ? fixName "docker-image-${finalImageName}-${finalImageTag}.tar"
}@arguments: overridable "dockerTools.pullImage" self arguments (
  let
    given = lib.filter (one: one != null) [ hash sha256 outputHash ];
    source = lib.escapeShellArg "docker://${imageName}@${imageDigest}";
  in
  assert lib.assertMsg (lib.length given == 1)
    "stowage.dockerTools.pullImage: give one of `hash`, `sha256` and `outputHash` for ${imageName}";
  runPull {
    inherit name;
    what = "${imageName}@${imageDigest}";
    byHand = "skopeo copy --override-os ${os} --override-arch ${arch} ${source} docker-archive:${name}:${lib.escapeShellArg "${finalImageName}:${finalImageTag}"}";
    outputHashMode = "flat";
    attributes = {
      inherit imageDigest;
      imageName = finalImageName;
      imageTag = finalImageTag;
      # The base's tag is not known if no tag is given.
      passthru.baseAnnotations = baseAnnotations {
        inherit imageName;
        digest = imageDigest;
        tag = if finalImageName == imageName then arguments.finalImageTag or null else null;
      };
      outputHash = lib.head given;
    } // lib.optionalAttrs (hash == null || hash == "") {
      outputHashAlgo = if outputHashAlgo != null then outputHashAlgo else "sha256";
    };
    command = ''
      skopeo --insecure-policy --tmpdir="$TMPDIR" \
        --override-os ${lib.escapeShellArg os} --override-arch ${lib.escapeShellArg arch} \
        copy --src-tls-verify=${lib.boolToString tlsVerify} ${source} \
        "docker-archive://$out:"${lib.escapeShellArg "${finalImageName}:${finalImageTag}"}
    '';
  }
)
)
