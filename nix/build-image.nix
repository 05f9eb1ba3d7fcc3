{ lib, pkgs, stdenv, writeText, annotationsOf, baseImage, internalSpec, nixDatabase, imageScript, overridable, storePaths }:

/* Builds a container image without storing its layers.

   The result is a script that streams the image to standard output, to be read by
   `docker load`, `podman load` or skopeo (`docker-archive:/dev/stdin`).

   Type: buildImage :: AttrSet -> Derivation

   Attributes of the result, besides those of a derivation:
   - imageName, imageTag: what the image is loaded as
   - imageRefUnsafe: the two as `name:tag`, without the string context that would build the image
   - copyToDockerDaemon: a program that loads it, sending only the layers that the daemon lacks
   - copyToRegistry, copyToPodman: programs that push it, and put it where podman has its images
   - copyTo: a program that copies it to wherever its argument says, in skopeo's notation
   - explain: a program that shows what the image is made of, and why
   - fromImage: the base image, or null
   - sbom: a list of its packages with versions, licences and dependencies, for scanners and auditors
   (SPDX; `sbom.cyclonedx` is CycloneDX)
   - spec: the image spec, `image.json`, which names every layer's contents and digest
   - isExe: true, as for nixpkgs' `streamLayeredImage`

   Example:
   buildImage {
       name = "hello";
       config.Cmd = [ "${pkgs.hello}/bin/hello" ];
   }
*/
lib.fix (self:
{
  # Name of the image, perhaps with a registry and a namespace. Put in lower case, as registries want it.
  name
  # Tag of the image; null for the hash of the output's store path.
, tag ? null
  # How the container runs (`config` of the OCI image spec). Everything it mentions is in the image.
, config ? { }
  # The annotations of its manifest: a set of strings (OCI image spec, annotations.md). On a pulled base,
  # `org.opencontainers.image.base.name` and `.digest` are added; null leaves one out.
, annotations ? { }
  # The image to stand on: what `buildImage`, `buildIndex`, `dockerTools`, `pullImage` or
  # `pullImageFromManifest` made, or an archive of `docker save` or skopeo. Its layers don't count for
  # maxLayers, and its config is inherited. What one of ours has in its store is not added again.
  # "" is null, as nix2container has it.
, fromImage ? null
  # A derivation or a list of them, whose files are copied to `/`.
, copyToRoot ? null
  # Where a link in copyToRoot meets a directory of the base image, such as `bin -> /nix/store/…-tools/bin`
  # its `/bin`: "merge" links to what is behind it, "replace" hides what the base has there, "refuse" is an error.
, directoryLinks ? "merge"
  # How many layers of its own the image may have, 1 to 127.
, maxLayers ? 60
  # What `buildLayer` made, to go below the image's own layers. They don't count for maxLayers.
, layers ? [ ]
  # Modes and owners of files, where not the usual: a list of rules `{ path; regex; mode; uid; gid; uname; gname; }`.
  # `path` is one of copyToRoot, or any other of the image's store paths; the rule is for those of its files
  # whose whole store path has a match for `regex`. A later rule overrides what it gives.
, perms ? [ ]
  # How store paths are grouped: "runs" re-sends least on the next update. Others, for who comes from
  # elsewhere: "auto" (nixpkgs' default), "popularity", "nixery", "largest-first", or a `layeringPipeline`.
, layering ? "runs"
  # What you know of your packages, by their names: `pin` (a list: a layer for each), `together` (a list of
  # lists: a layer for each list) and `last` (a list: the topmost layer).
, layeringHints ? { }
  # A file, or a derivation of one, with how many packages need each: what `popularity` made, or
  # `stowage popularity` printed. Images of different names, with the same file, share more layers.
, popularity ? null
  # A file with a plan to keep to: what `stowage plan` prints, or the `spec` of the last release.
, previousPlan ? null
  # The `spec` of an earlier build, which is believed: what didn't change since is not read again.
, previousImage ? null
  # How its layers are sent to registries: "none", "gzip" or "zstd". What is compressed has its digest
  # recorded here, so that nothing is compressed to find out that a registry has it.
, compression ? "none"
  # When the image was made, by its own account (RFC 3339).
, created ? "1970-01-01T00:00:01Z"
  # What its programs run on, by Go's name.
, arch ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
  # Whether Nix in the image finds its store paths valid: gives it a database of them, and of what is
  # in the base image's.
, initializeNixDatabase ? false
  # Who owns that database and the image's store directory.
, nixUid ? 0
, nixGid ? 0
  # The old name of copyToRoot.
, contents ? null
  # Documents that `copyToRegistry` keeps beside the image: a list of `{ file; type; }`, or a function of
  # `{ sbom }` that makes one: `{ sbom }: [ { file = sbom; type = "application/spdx+json"; } ]`.
, attach ? [ ]
, meta ? { }
}@arguments: overridable self arguments (
  let
    baseName = baseNameOf (lib.toLower name);
    base = if fromImage == "" then null else fromImage;

    # The file that holds what `config` mentions in one closure. The image has no use
    # for it, and leaves it out.
    configFile = writeText "${baseName}-config.json" (builtins.toJSON config);

    database = nixDatabase {
      function = "buildImage";
      name = baseName;
      roots = [ configFile ] ++ map (layer: "${layer}") (storePaths layers);
      inherit copyToRoot contents layers fromImage;
      architecture = arch;
      exclude = [ configFile ];
    };
    # Nix writes there, as whoever it is in the container.
    nixPerms =
      let owned = { path = database; uid = nixUid; gid = nixGid; };
      in [ (owned // { mode = "0755"; }) (owned // { regex = "/db/"; mode = "0644"; }) ];

    spec = internalSpec {
      function = "buildImage";
      name = "${baseName}-image.json";
      kind = "image";
      roots = [ configFile ];
      inherit copyToRoot contents layers;
      perms = lib.flatten perms ++ lib.optionals initializeNixDatabase nixPerms;
      addToRoot = lib.optional initializeNixDatabase "${database}";
      options = {
        inherit config created directoryLinks maxLayers layering layeringHints compression;
        annotations = annotationsOf { function = "buildImage"; inherit annotations; fromImage = base; };
        popularity = if popularity == null then null else "${popularity}";
        previousPlan = if previousPlan == null then null else "${previousPlan}";
        previousImage = if previousImage == null then null else "${previousImage}";
        fromImage = baseImage fromImage;
        architecture = arch;
        exclude = [ configFile ];
      };
    };

  in
  imageScript {
    function = "buildImage";
    prefix = "image";
    inherit name tag spec meta attach;
    roots = storePaths [ copyToRoot contents ] ++ lib.concatMap (layer: layer.sbomRoots) layers;
    texts = [ (builtins.toJSON config) ];
    passthru.fromImage = base;
  }
)
)
