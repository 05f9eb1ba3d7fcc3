{ lib, pkgs, stdenv, symlinkJoin, imageSpec, rootTar, imageScript, overridable, storePaths, tarball }:

let
  # The arguments of both functions, with nixpkgs' defaults.
  streamLayeredImage =
    {
      # Name of the image; tag of it, or null for the hash of the output's store path.
      name
    , tag ? null
      # The image to stand on: an archive, or whatever else our buildImage takes.
    , fromImage ? null
      # Store paths whose files are linked to at the image's root.
    , contents ? [ ]
      # How the container runs (`config` of the OCI image spec).
    , config ? { }
      # The annotations of its manifest: a set of strings. nixpkgs has no such argument.
    , annotations ? { }
      # What its programs run on, by Go's name.
    , architecture ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
      # When it was made, by its own account, and when its files were changed; or "now".
    , created ? "1970-01-01T00:00:01Z"
    , mtime ? "1970-01-01T00:00:01Z"
      # Who owns the image's store.
    , uid ? 0
    , gid ? 0
    , uname ? "root"
    , gname ? "root"
      # How many layers there may be, with those of the base and the one on top.
    , maxLayers ? 100
      # Commands, with the image's root as directory they are run in.
    , extraCommands ? ""
      # The same as somebody who seems to be root; chroot'ed, if wanted, so that `/` is the image's.
    , fakeRootCommands ? ""
    , enableFakechroot ? false
      # Whether store paths are in the image; without them, it is for machines whose store it is given.
    , includeStorePaths ? true
      # Whether a Nix in the image finds them valid.
    , includeNixDB ? false
      # How store paths are grouped, by a pipeline of nixpkgs'; then maxLayers says nothing.
    , layeringPipeline ? null
      # nixpkgs' own prints what it decides; ours is asked: `explain`.
    , debug ? false
    , passthru ? { }
    , meta ? { }
    }@arguments: overridable streamLayeredImage arguments (
      let
        baseName = baseNameOf (lib.toLower name);
        contentsList = storePaths contents;
        linked = symlinkJoin { name = "${baseName}-contents"; paths = contentsList; };
        # Files need a layer of their own if a store path can't hold them as they are.
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
          # Of directories: all else are links.
          perms = lib.optional (!asTar && contentsList != [ ]) { path = linked; mode = "0755"; };
          tars = lib.optional asTar tar;
        };
      in
      assert lib.assertMsg (layeringPipeline != null || maxLayers > 1)
        "stowage.dockerTools.streamLayeredImage: `maxLayers` must be greater than 1, not ${toString maxLayers}: one layer is for `contents`";
      builtins.seq debug (imageScript {
        function = "dockerTools.streamLayeredImage";
        prefix = "stream";
        inherit name tag spec meta passthru;
        roots = contentsList;
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
    { compressor ? "gz", name, tag ? null, fromImage ? null, contents ? [ ], config ? { }, annotations ? { }, architecture ? null, created ? null, mtime ? null, uid ? 0, gid ? 0, uname ? "root", gname ? "root", maxLayers ? 100, extraCommands ? "", fakeRootCommands ? "", enableFakechroot ? false, includeStorePaths ? true, includeNixDB ? false, layeringPipeline ? null, debug ? false, passthru ? { }, meta ? { } }@arguments:
    let
      # With the defaults that are streamLayeredImage's own.
      stream = streamLayeredImage (removeAttrs arguments [ "compressor" ]);
    in
    overridable buildLayeredImage arguments
      (tarball { inherit stream compressor meta; name = baseNameOf (lib.toLower name); });

}
