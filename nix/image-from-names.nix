{ lib, ownPkgs, buildEnv, runCommandLocal, writeText, stowage, buildImage, overridable }:

/* Builds an image of packages that are given by their names, as an image service has them.

   The result is that of `buildImage`. If there is no package of some name, evaluating the
   result fails with these names, and its attributes `missing` and `json` have them.

   Always in the image: `cacert` with SSL_CERT_FILE set, `iana-etc`, /tmp for everybody,
   /usr/bin/env.

   Type: buildImageFromNames :: AttrSet -> Derivation

   Attributes of the result, besides those of buildImage's:
   - missing: the names of which there is no package
   - json: a file, with `{ manifest; layerLocations; }`, the latter by digest; or if a name is
   missing, with `{ error = "not_found"; pkgs = [ NAME … ]; }`

   Example:
   buildImageFromNames {
       name = "shell/git/htop";
       packages = [ "shell" "git" "htop" ];
   }
*/
lib.fix (self:
{
  # Name of the image, perhaps with a registry and a namespace. Put in lower case, as registries want it.
  name
  # Names of packages, as a list or as JSON: attributes, perhaps of sets (`python3Packages.requests`).
  # What is not there as it is written is looked up regardless of case, and with an underscore before
  # its digit. `shell` is bash, coreutils, moreutils and nano; `arm64`, which must be the first, has
  # the image made for that.
, packages ? [ ]
  # Tag of the image; null for the hash of the output's store path.
, tag ? null
  # How many layers the image may have, 1 to 127.
, maxLayers ? 96
  # What images of other names are likely to have as well, as for buildImage: with the same file for
  # all names, they share more layers.
, popularity ? null
  # Who owns the files outside of the store.
, uid ? 0
, gid ? 0
  # Shell commands that change these files, where they are: the packages' are links.
, extraCommands ? ""
  # The packages: a package set, or where one is imported from: `nixpkgs!CHANNEL`, a branch of nixpkgs;
  # `git!REPOSITORY!REV`, a commit or a branch; `path!DIRECTORY`. What is imported is a function that
  # takes `system`, as nixpkgs is. null: the packages of this library.
, pkgs ? null
, pkgSource ? null
  # What they run on, by Nix's name; null for what `pkgs` are for.
, system ? null
}@arguments: overridable self arguments (
  let
    packageNames = import ./package-names.nix { inherit lib; };
    parsed = packageNames.parse packages;

    set = import ./package-set.nix { inherit ownPkgs; } {
      inherit pkgs pkgSource;
      system = if parsed.arm64 then "aarch64-linux" else system;
    };
    find = packageNames.find set;

    isShell = lib.elem "shell" parsed.names;
    shell = [ "bashInteractive" "coreutils" ] ++ lib.filter (name: set ? ${name}) [ "moreutils" "nano" ];
    expand = name: if name == "shell" then shell else [ name ];
    inRoot = find (lib.unique (lib.concatMap expand parsed.names ++ [ "cacert" "iana-etc" ]));
    # Of its programs every image has `env`, and the others only if they are asked for.
    coreutils = find [ "coreutils" ];
    missing = lib.unique (inRoot.missing ++ coreutils.missing);

    root = buildEnv {
      name = "image-root";
      paths = inRoot.found;
      # As elsewhere, what comes first is meant.
      ignoreCollisions = true;
      postBuild = ''
        cd $out
        # What one package alone has is a link to its directory, to which nothing can be added.
        for directory in * usr/bin; do
          if [ -L "$directory" ] && [ -d "$directory" ]; then
            linked=$(readlink -f "$directory")
            rm "$directory"
            mkdir "$directory"
            find "$linked" -mindepth 1 -maxdepth 1 -exec ln -s -t "$directory" {} +
          fi
        done
        mkdir -p tmp usr/bin
        [ -e usr/bin/env ] || ln -s ${toString coreutils.found}/bin/env usr/bin/env
        ${extraCommands}
      '';
    };

    image = buildImage {
      inherit name tag maxLayers popularity;
      copyToRoot = root // { sbomRoots = inRoot.found ++ coreutils.found; };
      perms = [
        { path = root; inherit uid gid; regex = ""; }
        { path = root; regex = "^${lib.escapeRegex builtins.storeDir}/[^/]+/tmp$"; mode = "1777"; }
      ];
      config = {
        Env = [ "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt" ];
      } // lib.optionalAttrs isShell { Cmd = [ "bash" ]; };
      arch = set.stdenv.hostPlatform.go.GOARCH or set.go.GOARCH;
    };

    complain = throw "stowage.buildImageFromNames: there are no packages by the names ${lib.concatMapStringsSep ", " (name: "`${name}`") missing}";
    # What Nix takes for a derivation, and fails to evaluate.
    none = { type = "derivation"; name = "image"; drvPath = complain; outPath = complain; };
  in
  if missing == [ ] then
    image // {
      inherit missing;
      json = runCommandLocal "manifest.json" { } "${stowage}/bin/stowage manifest --locations ${image.spec} > $out";
    }
  else
    none // {
      inherit missing;
      json = writeText "not-found.json" (builtins.toJSON { error = "not_found"; pkgs = missing; });
    }
)
)
