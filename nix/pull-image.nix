{ lib, pkgs, baseAnnotations, runPull, stdenv, stowage, overridable }:

/* Pulls an image from a registry, for `buildImage { fromImage = …; }`.

   The result is a directory in the format of `skopeo copy … dir:`, with unchanged layers. The
   digest is checked. `sha256` has the same value as in nix2container's `pullImage`.

   `stowage prefetch docker.io/library/alpine:3.20` prints the arguments for a tag.

   Credentials for the registry are read from /etc/skopeo/auth.json in the
   sandbox (`extra-sandbox-paths` of nix.conf).

   Type: pullImage :: AttrSet -> Derivation

   Example:
   pullImage {
       imageName = "docker.io/library/alpine";
       imageDigest = "sha256:…";
       hash = "sha256-…";
   }
*/
lib.fix (self:
{
  # Name of the image, with its registry.
  imageName
  # Digest of the image's manifest, or of an index of images for several platforms.
, imageDigest
  # Hash of the directory. `sha256` is nix2container's name for it.
, hash ? sha256
, sha256 ? throw "stowage.pullImage: `hash` is missing; `stowage prefetch ${imageName}` prints it"
  # Name and tag of the image after it is pulled: the attributes `imageName` and `imageTag` of the result. The
  # directory does not have them.
, finalImageName ? imageName
, finalImageTag ? "latest"
  # The platform of the image in an index, by Go's names.
, os ? "linux"
, arch ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
  # True if the registry must have a valid certificate; false also allows plain HTTP.
, tlsVerify ? true
  # A file with a public key that must verify a signature of the image, by cosign or stowage, before any layer
  # is pulled. If Nix already has the image, it pulls nothing, and verifies nothing.
, publicKey ? null
  # The largest size of an unpacked layer of the image, in bytes or as a string such as "256G", and the largest
  # ratio of unpacked to packed size, beyond 512 MiB; null for the defaults, "128G" and 100.
, maxUnpacked ? null
, maxRatio ? null
  # Name of the directory.
, name ? "docker-image-${imageName}"
}@arguments: overridable "pullImage" self arguments (
  let
    # The text of the key, if Nix has it without a build.
    keyText = if builtins.isPath publicKey then builtins.readFile publicKey else publicKey.text or "";
    directory = lib.strings.sanitizeDerivationName name;
    source = lib.escapeShellArg "docker://${imageName}@${imageDigest}";
  in
  assert lib.assertMsg (publicKey == null || builtins.isPath publicKey || lib.isStringLike publicKey && lib.hasPrefix "${builtins.storeDir}/" "${publicKey}")
    "stowage.pullImage: `publicKey` must be a file of the store: a path such as `./base.pub`, or a derivation";
  # Look before the key is copied to the store, where every user can read it.
  assert lib.assertMsg (!lib.hasInfix "PRIVATE KEY-----" keyText)
    "stowage.pullImage: `publicKey` is a private key, which everybody could read in the Nix store: give the public key of the pair";
  assert lib.assertMsg (builtins.match "sha256:[0-9a-f]{64}" imageDigest != null)
    "stowage.pullImage: `imageDigest` must be `sha256:` and 64 hex digits, not `${imageDigest}`: a tag may name another image tomorrow";
  runPull {
    name = directory;
    what = "${imageName}@${imageDigest}";
    byHand = "skopeo copy --override-os ${os} --override-arch ${arch} ${source} dir:${directory}";
    outputHashMode = "recursive";
    attributes = {
      outputHashAlgo = "sha256";
      outputHash = hash;
      passthru = {
        inherit maxUnpacked maxRatio;
        imageName = finalImageName;
        imageTag = finalImageTag;
        # The base's tag is not known if no tag is given.
        baseAnnotations = baseAnnotations {
          inherit imageName;
          digest = imageDigest;
          tag = if finalImageName == imageName then arguments.finalImageTag or null else null;
        };
      };
    };
    command = ''
      ${lib.optionalString (publicKey != null) ''
        ${stowage}/bin/stowage verify --key ${lib.escapeShellArg "${publicKey}"} --tls-verify=${lib.boolToString tlsVerify} \
          "''${authentication[@]}" ${source}
      ''}
      # The sandbox has no /etc/containers with a policy, and no /var/tmp for temporary files.
      skopeo --insecure-policy --tmpdir="$TMPDIR" \
        --override-os ${lib.escapeShellArg os} --override-arch ${lib.escapeShellArg arch} \
        copy --quiet --src-tls-verify=${lib.boolToString tlsVerify} "''${authentication[@]}" ${source} "dir:$out"
    '';
  }
)
)
