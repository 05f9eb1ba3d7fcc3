{ lib, ownPkgs, buildEnv, runCommandLocal, writeText, stowage, buildImage, overridable }:

/* Builds an image of packages that are given by their names, like an image service.

   The result is that of `buildImage`. If names have no package, evaluating the result or an attribute such
   as `sbom` fails with these names, but its attributes `missing` and `json` can be evaluated.

   Every image has `cacert` (with SSL_CERT_FILE), `iana-etc`, /tmp for all users, and
   /usr/bin/env.

   Type: buildImageFromNames :: AttrSet -> Derivation

   Attributes of the result, besides those of `buildImage`:
   - missing: the names without a package
   - packages: the packages, each with its outputs that are in the image
   - json: a file with `{ manifest; layerLocations; }`, the latter by digest; or, if a name is
   missing, with `{ error = "not_found"; pkgs = [ NAME … ]; }`

   Example:
   buildImageFromNames {
       name = "shell/git/htop";
       packages = [ "shell" "git" "htop" ];
   }
*/
lib.fix (self:
{
  # Name of the image, with a registry and a namespace if it has them. It is put in lower case, since
  # registries only accept that.
  name
  # Names of packages, as a list or as JSON: attributes, also of sets (`python3Packages.requests`). A name
  # that does not exist as it is written is looked up regardless of case, and with an underscore before a
  # digit at its start. `shell` stands for bash, coreutils, moreutils and nano. `arm64`, which must be the
  # first, makes the image for that architecture.
, packages ? [ ]
  # Tag of the image; null for the hash of the output's store path.
, tag ? null
  # The largest number of layers, 1 to 127.
, maxLayers ? 96
  # Popularity data of packages, as for buildImage: with the same file, images of different names share more
  # layers.
, popularity ? null
  # The owner of the files outside of the store.
, uid ? 0
, gid ? 0
  # The user of the container: a name, or a set `{ name; uid; gid; home; shell; groups; }`. Its
  # number is 1000 if it is left out.
, user ? null
  # Shell commands that change the files outside of the store, run in their directory. Files of packages are
  # links there.
, extraCommands ? ""
  # The packages: a package set, or a source to import one from: `nixpkgs!CHANNEL`, a branch of nixpkgs;
  # `git!REPOSITORY!REV`, a commit or a branch; `path!DIRECTORY`. A source is a function that takes `system`,
  # like nixpkgs. null stands for the packages of this library.
, pkgs ? null
, pkgSource ? null
  # The system of the packages, by Nix's name; null for the system of `pkgs`.
, system ? null
}@arguments: overridable "buildImageFromNames" self arguments (
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
    # Every image has `env` of coreutils, and the other programs only if they are asked for.
    coreutils = find [ "coreutils" ];
    missing = lib.unique (inRoot.missing ++ coreutils.missing);

    root = buildEnv {
      name = "image-root";
      paths = inRoot.found;
      # If two packages have a file of one name, the first package's is taken.
      ignoreCollisions = true;
      postBuild = ''
        cd $out
        # A directory that only one package has would be a link to that package's directory, to which nothing can be added.
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

    # The outputs that `buildEnv` takes, and that of which links are made here.
    outputsOf = drv:
      if drv.outputSpecified or false then [ drv ]
      else map (output: drv.${output}) (drv.meta.outputsToInstall or [ drv.outputName ]);
    inImage = lib.unique (lib.concatMap outputsOf inRoot.found ++ coreutils.found);

    # A name without other settings is that of a new user.
    account =
      let given = if builtins.isString user then { name = user; } else user; in
      if given.name or null != null then given
      else throw "stowage.buildImageFromNames: `user` must be a name, or a set with a `name`, such as { name = \"app\"; uid = 1000; }";

    image = buildImage ({
      inherit name tag maxLayers popularity;
      copyToRoot = root // { sbomRoots = inRoot.found ++ coreutils.found; sbomSet = set; };
      perms = [
        { path = root; inherit uid gid; regex = ""; }
        { path = root; regex = "^${lib.escapeRegex builtins.storeDir}/[^/]+/tmp$"; mode = "1777"; }
      ];
      config = {
        Env = [ "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt" ];
      } // lib.optionalAttrs isShell { Cmd = [ "bash" ]; };
      arch = set.stdenv.hostPlatform.go.GOARCH or set.go.GOARCH;
    } // lib.optionalAttrs (user != null) {
      user = account.name;
      accounts.users.${account.name} = { uid = 1000; } // removeAttrs account [ "name" ];
    });

    complain = throw "stowage.buildImageFromNames: there are no packages by the names ${lib.concatMapStringsSep ", " (name: "`${name}`") missing}";
    # Nix takes this for a derivation, and evaluating it fails, as does evaluating what `buildImage` documents.
    none = lib.genAttrs [
      "drvPath"
      "outPath"
      "imageName"
      "imageTag"
      "imageRefUnsafe"
      "copyToDockerDaemon"
      "copyToRegistry"
      "copyToPodman"
      "copyTo"
      "explain"
      "fromImage"
      "sbom"
      "forServe"
      "attachments"
      "spec"
    ]
      (_: complain) // { type = "derivation"; name = "image"; };
  in
  if missing == [ ] then
    image // {
      inherit missing;
      packages = inImage;
      json = runCommandLocal "manifest.json" { } "${stowage}/bin/stowage manifest --locations ${image.spec} > $out";
    }
  else
    none // {
      inherit missing;
      packages = [ ];
      json = writeText "not-found.json" (builtins.toJSON { error = "not_found"; pkgs = missing; });
    }
)
)
