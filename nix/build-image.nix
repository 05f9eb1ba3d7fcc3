{ lib, pkgs, stdenv, writeText, annotationsOf, baseImage, internalSpec, nixDatabase, imageScript, overridable, storePaths, systemFiles, unpackLimits }:

/* Builds a container image without storing its layers.

   The result is a script that streams the image to standard output, to be read by
   `docker load`, `podman load` or skopeo (`docker-archive:/dev/stdin`).

   Type: buildImage :: AttrSet -> Derivation

   Attributes of the result, besides those of a derivation:
   - imageName, imageTag: the name and tag under which the image is loaded
   - imageRefUnsafe: the two as `name:tag`, without the string context that would build the image
   - copyToDockerDaemon: a program that loads the image into Docker, and sends only the layers that the daemon lacks
   - copyToRegistry, copyToPodman: programs that push the image, and copy it into podman's storage
   - copyTo: a program that copies the image to a target, in skopeo's notation
   - explain: a program that shows the contents of the image, and the reasons for them
   - fromImage: the base image, or null
   - sbom: a list of its packages with versions, licences and dependencies, for scanners and auditors
   (SPDX; `sbom.cyclonedx` is CycloneDX)
   - forServe: a directory for `stowage serve`, with the image and the documents of `attach`
   - attachments: a list of these documents for `stowage serve`, or null
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
  # Name of the image, with a registry and a namespace if it has them. It is put in lower case, since
  # registries only accept that.
  name
  # Tag of the image; null for the hash of the output's store path.
, tag ? null
  # The configuration of the container (`config` of the OCI image spec). Every store path in it is in the
  # image.
, config ? { }
  # The annotations of the image's manifest: strings by key (OCI image spec, annotations.md). On a pulled base
  # image, `org.opencontainers.image.base.name` and `.digest` are added; null leaves one out.
, annotations ? { }
  # The base image: the result of `buildImage`, `buildIndex`, `dockerTools`, `pullImage` or
  # `pullImageFromManifest`, or an archive of `docker save` or skopeo. Its layers don't count for maxLayers,
  # and its config is inherited. If stowage made it, its store paths are not added again. "" means null, as in
  # nix2container.
, fromImage ? null
  # The largest size of an unpacked layer of the base image, in bytes or as a string such as "256G", and the
  # largest ratio of unpacked to packed size, beyond 512 MiB; null for those of `fromImage`, or for the defaults,
  # "128G" and 100.
, maxUnpacked ? null
, maxRatio ? null
  # A derivation or a list of derivations whose files are copied to `/`.
, copyToRoot ? null
  # The way to add a link of copyToRoot where the base image has a directory, such as `bin ->
  # /nix/store/…-tools/bin` where the base has `/bin`: "merge" adds a link to each file of the link's
  # directory, "replace" hides the base's directory, "refuse" is an error. A file in place of a directory hides it, or
  # is an error with "refuse".
, directoryLinks ? "merge"
  # The largest number of the image's own layers, 1 to 127.
, maxLayers ? 60
  # Results of `buildLayer`, which go below the image's own layers. They don't count for maxLayers.
, layers ? [ ]
  # Modes and owners of files, if they are not the usual ones: a list of rules `{ path; regex; type; mode; uid; gid;
  # uname; gname; }`. `path` is one of copyToRoot or another store path of the image. A rule applies to the
  # files of `path` whose whole store path has a match for `regex`, or only to those of a `type` ("directory", "file",
  # "link"). `mode` is octal (`"1777"`), or a change as for chmod (`"g=u"`, `"a+rX"`). A later rule overrides an earlier one.
, perms ? [ ]
  # Users and groups: `users` by name (`uid`, `gid`, `home`, `shell`, `groups`, `description`) and `groups` by name
  # (`gid`, `members`). They are merged with those of the base image, of `layers` and of copyToRoot. It is an error if a
  # name has another number there, or a number another name. The homes of the users are made.
, accounts ? { }
  # The user of the container, by name or number, perhaps with a group (`app:data`). `config.User` gets the numbers.
, user ? null
  # Directories by path, each with `mode`, `user` and `group` (names or numbers). An existing directory keeps what is
  # left out; a new one has mode 0755 and belongs to root.
, directories ? { }
  # Files by path, each with `text` or `source`, and `mode`, `user` and `group`.
, files ? { }
  # The targets of links by path.
, links ? { }
  # True to make /tmp, for all users (mode 1777).
, tmp ? false
  # The way to group store paths: "runs" sends least on the next update. "auto" (nixpkgs' default),
  # "popularity", "nixery", "largest-first" and a `layeringPipeline` are those of other tools.
, layering ? "runs"
  # Hints about your packages, by their names: `pin` (a list: a layer for each), `together` (a list of lists:
  # a layer for each list) and `last` (a list: the topmost layer).
, layeringHints ? { }
  # A file, or a derivation of a file, with the number of packages that need each package: the result of
  # `popularity`, or the output of `stowage popularity`. Images of different names with the same file share
  # more layers.
, popularity ? null
  # A file with a plan whose layers are kept: the output of `stowage plan`, or the `spec` of the last release.
, previousPlan ? null
  # The `spec` of an earlier build, whose digests are trusted: layers that did not change are not read again.
, previousImage ? null
  # The compression of layers for registries: "none", "gzip", "zstd" or "zstd:chunked", of which podman
  # fetches only the pieces that it lacks. The digests of compressed layers are recorded when the image is
  # built, so that a push compresses no layer that the registry has.
, compression ? "none"
  # True to keep the compressed layers in the store, in an output of the image spec, so that a push does not
  # compress a layer again. They are dependencies of the image.
, keepCompressed ? false
  # The creation time in the image: `1970-01-01T00:00:01Z` (RFC 3339), `2024-05-13` (ISO 8601), or `self.lastModifiedDate` of
  # a flake. "now" is the time of the build.
, created ? "1970-01-01T00:00:01Z"
  # The architecture of the image's programs, by Go's name.
, arch ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
  # True to give the image a Nix database of its store paths, so that a Nix in the image finds them valid. The
  # base image's database is merged with it.
, initializeNixDatabase ? false
  # The owner of that database and of the image's store directory; null for the one that the base image has, which is
  # root if it has none.
, nixUid ? null
, nixGid ? null
  # The old name of copyToRoot.
, contents ? null
  # Documents that `copyToRegistry` attaches to the image, and `stowage serve` serves with it (`forServe`): a list of `{ file; type; }`, or a function of `{
  # sbom }` that returns such a list: `{ sbom }: [ { file = sbom; type = "application/spdx+json"; } ]`.
, attach ? [ ]
  # The `meta` attributes of the derivation.
, meta ? { }
}@arguments: overridable "buildImage" self arguments (
  let
    baseName = baseNameOf (lib.toLower name);
    base = if fromImage == "" then null else fromImage;
    layersList = storePaths "buildImage: `layers`" layers;
    limitedBase = unpackLimits.limited { inherit maxUnpacked maxRatio; fromImage = base; };

    # A file with the store paths of `config`, so that they are in the closure. The file itself is left out of
    # the image.
    configFile = writeText "${baseName}-config.json" (builtins.toJSON config);

    system = systemFiles {
      function = "buildImage";
      name = baseName;
      inherit accounts directories files links tmp user config copyToRoot contents layers perms directoryLinks;
      fromImage = limitedBase;
      architecture = arch;
    };
    declared = lib.optional (system != null) "${system}";

    database = nixDatabase {
      function = "buildImage";
      name = baseName;
      roots = [ configFile ] ++ map (layer: "${layer}") layersList;
      inherit copyToRoot contents layers;
      fromImage = limitedBase;
      architecture = arch;
      exclude = [ configFile ];
      addToRoot = declared;
    };
    # Nix writes to these directories as the user of the container.
    nixPerms =
      let
        inherited = lib.optionalAttrs (base == null) { uid = 0; gid = 0; };
        given = lib.filterAttrs (_: number: number != null) { uid = nixUid; gid = nixGid; };
      in
      [ ({ path = database; mode = "u+w"; } // inherited // given) ];

    spec = internalSpec {
      function = "buildImage";
      name = "${baseName}-image.json";
      kind = "image";
      roots = [ configFile ];
      inherit copyToRoot contents layers;
      fromImage = limitedBase;
      perms = lib.flatten perms ++ lib.optionals initializeNixDatabase nixPerms;
      addToRoot = declared ++ lib.optional initializeNixDatabase "${database}";
      keepsLayers = assert lib.assertMsg (!keepCompressed || compression != "none")
        "stowage.buildImage: `keepCompressed` needs a `compression`: layers that are not compressed are never stored";
        keepCompressed;
      options = {
        inherit config created directoryLinks maxLayers layering layeringHints compression;
        annotations = annotationsOf { function = "buildImage"; inherit annotations; fromImage = base; };
        popularity = if popularity == null then null else "${popularity}";
        previousPlan = if previousPlan == null then null else "${previousPlan}";
        previousImage = if previousImage == null then null else "${previousImage}";
        fromImage = baseImage fromImage;
        architecture = arch;
        exclude = [ configFile ];
      } // lib.optionalAttrs (system != null) { systemFiles = "${system}"; };
    };

  in
  imageScript {
    function = "buildImage";
    prefix = "image";
    inherit name tag spec meta attach;
    roots = storePaths "buildImage: `copyToRoot`" [ copyToRoot contents ] ++ lib.concatMap (layer: layer.sbomRoots) layersList;
    texts = [ (builtins.toJSON config) ];
    limits = unpackLimits.of limitedBase;
    fromImage = base;
    passthru.fromImage = base;
  }
)
)
