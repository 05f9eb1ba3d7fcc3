{ lib, pkgs, stdenv, symlinkJoin, imageSpec, rootTar, imageScript, overridable, storePaths, tarball, unpackLimits }:

let
  # The arguments of both functions, with nixpkgs' defaults.
  streamLayeredImage =
    {
      # Name of the image; tag of it, or null for the hash of the output's store path.
      name
    , tag ? null
      # The base image: an archive, or any other base that stowage's buildImage accepts.
    , fromImage ? null
      # Store paths whose files are linked to at the image's root.
    , contents ? [ ]
      # The configuration of the container (`config` of the OCI image spec).
    , config ? { }
      # The annotations of the image's manifest: strings by key. nixpkgs has no such argument.
    , annotations ? { }
      # Users and groups, the user of the container, directories, files, links, and /tmp, as for stowage's
      # buildImage. nixpkgs has no such arguments.
    , accounts ? { }
    , user ? null
    , directories ? { }
    , files ? { }
    , links ? { }
    , tmp ? false
      # The architecture of the image's programs, by Go's name.
    , architecture ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
      # The creation time in the image, and the modification time of its files; or "now".
    , created ? "1970-01-01T00:00:01Z"
    , mtime ? "1970-01-01T00:00:01Z"
      # The owner of the image's store.
    , uid ? 0
    , gid ? 0
    , uname ? "root"
    , gname ? "root"
      # The largest number of layers, with those of the base and the one on top.
    , maxLayers ? 100
      # Commands that run in the directory of the image's root.
    , extraCommands ? ""
      # Commands that run as a simulated root; with enableFakechroot, they see the image's root as `/`.
    , fakeRootCommands ? ""
    , enableFakechroot ? false
      # True to put store paths into the image. Without them, the image needs a machine that provides the
      # store.
    , includeStorePaths ? true
      # True to give the image a Nix database, so that a Nix in it finds the store paths valid.
    , includeNixDB ? false
      # A pipeline of nixpkgs' that groups store paths. maxLayers then has no effect.
    , layeringPipeline ? null
      # Has no effect: `explain` shows the plan. With nixpkgs, it prints the plan.
    , debug ? false
    , passthru ? { }
    , meta ? { }
    }@arguments: overridable "dockerTools.streamLayeredImage" streamLayeredImage arguments (
      let
        baseName = baseNameOf (lib.toLower name);
        contentsList = storePaths "dockerTools.streamLayeredImage: `contents`" contents;
        linked = symlinkJoin { name = "${baseName}-contents"; paths = contentsList; };
        # Files need a layer of their own if a store path can't have their modes or owners.
        commands = extraCommands != "" || fakeRootCommands != "";
        asTar = commands || !includeStorePaths;
        tar = rootTar {
          name = "${baseName}-customisation-layer";
          copyToRoot = lib.optional (contentsList != [ ]) linked;
          writable = true;
          inherit extraCommands fakeRootCommands;
          chroot = enableFakechroot;
        };
        spec = imageSpec {
          function = "dockerTools.streamLayeredImage";
          name = baseName;
          inherit fromImage config annotations architecture created includeStorePaths includeNixDB;
          maxLayers = if layeringPipeline == null then maxLayers else 127;
          layering = if layeringPipeline == null then "runs" else layeringPipeline;
          storeAttributes = { inherit uid gid uname gname mtime; };
          roots = map (path: "${path}") contentsList;
          copyToRoot = lib.optional (!asTar && contentsList != [ ]) linked;
          # The mode of directories. All other files are links.
          perms = lib.optional (!asTar && contentsList != [ ]) { path = linked; mode = "0755"; };
          tars = lib.optional asTar tar;
          declarations = { inherit accounts user directories files links tmp; };
        };
      in
      assert lib.assertMsg (layeringPipeline != null || maxLayers > 1)
        "stowage.dockerTools.streamLayeredImage: `maxLayers` must be greater than 1, not ${toString maxLayers}: one layer is for `contents`";
      builtins.seq debug (imageScript {
        function = "dockerTools.streamLayeredImage";
        prefix = "stream";
        inherit name tag spec meta passthru;
        limits = unpackLimits.of fromImage;
        roots = contentsList;
        inherit fromImage;
        texts = [ (builtins.toJSON config) extraCommands fakeRootCommands ];
      })
    );
in
rec {
  /* A script that streams an image of one layer for each few store paths.

     Type: streamLayeredImage :: AttrSet -> Derivation
  */
  inherit streamLayeredImage;

  /* The same as a file; `compressor` is "none", "gz" or "zstd".

     Type: buildLayeredImage :: AttrSet -> Derivation
  */
  buildLayeredImage =
    # deadnix: skip
    { compressor ? "gz", name, tag ? null, fromImage ? null, contents ? [ ], config ? { }, annotations ? { }, accounts ? { }, user ? null, directories ? { }, files ? { }, links ? { }, tmp ? false, architecture ? null, created ? null, mtime ? null, uid ? 0, gid ? 0, uname ? "root", gname ? "root", maxLayers ? 100, extraCommands ? "", fakeRootCommands ? "", enableFakechroot ? false, includeStorePaths ? true, includeNixDB ? false, layeringPipeline ? null, debug ? false, passthru ? { }, meta ? { } }@arguments:
    let
      # Uses the defaults of streamLayeredImage.
      stream = streamLayeredImage (removeAttrs arguments [ "compressor" ]);
    in
    overridable "dockerTools.buildLayeredImage" buildLayeredImage arguments
      (tarball { inherit stream compressor meta; name = baseNameOf (lib.toLower name); });

}
