{ lib, pkgs, baseAnnotations, cacert, runCommand, stdenv, stowage, overridable }:

/* Pulls an image from a registry, for `buildImage { fromImage = …; }`.

   The result is a directory as by `skopeo copy … dir:`, of this digest and no other: layers
   are kept as the registry has them. `sha256` is that of nix2container's `pullImage`.

   `stowage prefetch docker.io/library/alpine:3.20` prints the arguments for a tag.

   A registry's credentials, if it wants any, are read from /etc/skopeo/auth.json in the
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
  # Digest of its manifest, or of an index of manifests for several platforms.
, imageDigest
  # Hash of the directory; `sha256` is the same by nix2container's name.
, hash ? sha256
, sha256 ? throw "stowage.pullImage: `hash` is missing; `stowage prefetch ${imageName}` prints it"
  # What the image is to be called: the directory has it nowhere, the result as `imageName` and
  # `imageTag`.
, finalImageName ? imageName
, finalImageTag ? "latest"
  # What the image is for, by Go's names: chooses among an index's manifests.
, os ? "linux"
, arch ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
  # Whether the registry must have a certificate; false also for plain HTTP.
, tlsVerify ? true
  # A file with a public key that must have signed the image, as cosign or stowage does. It is verified before
  # any layer is pulled; Nix does not pull, and so does not verify again, what it has already.
, publicKey ? null
  # Name of the directory.
, name ? "docker-image-${imageName}"
}@arguments: overridable self arguments (
  assert lib.assertMsg (builtins.match "sha256:[0-9a-f]{64}" imageDigest != null)
    "stowage.pullImage: `imageDigest` must be `sha256:` and 64 hex digits, not `${imageDigest}`: a tag may name another image tomorrow";
  runCommand (lib.strings.sanitizeDerivationName name)
  {
    nativeBuildInputs = [ pkgs.buildPackages.skopeo ];
    SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
    impureEnvVars = lib.fetchers.proxyImpureEnvVars;
    outputHashMode = "recursive";
    outputHashAlgo = "sha256";
    outputHash = hash;
    passthru = {
      imageName = finalImageName;
      imageTag = finalImageTag;
      # A tag that is not given may be another one.
      baseAnnotations = baseAnnotations {
        inherit imageName;
        digest = imageDigest;
        tag = if finalImageName == imageName then arguments.finalImageTag or null else null;
      };
    };
  } ''
    authentication=()
    if [ -f /etc/skopeo/auth.json ]; then authentication=(--authfile /etc/skopeo/auth.json); fi
    ${lib.optionalString (publicKey != null) ''
      ${stowage}/bin/stowage verify --key ${publicKey} --tls-verify=${lib.boolToString tlsVerify} \
        "''${authentication[@]}" ${lib.escapeShellArg "docker://${imageName}@${imageDigest}"}
    ''}
    # What skopeo has no place for in the sandbox, where /etc/containers and /var/tmp are missing.
    skopeo --insecure-policy --tmpdir="$TMPDIR" \
      --override-os ${lib.escapeShellArg os} --override-arch ${lib.escapeShellArg arch} \
      copy --quiet --src-tls-verify=${lib.boolToString tlsVerify} "''${authentication[@]}" \
      ${lib.escapeShellArg "docker://${imageName}@${imageDigest}"} "dir:$out"
  ''
)
)
