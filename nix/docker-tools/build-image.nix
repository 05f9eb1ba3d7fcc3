{ lib, pkgs, stdenv, imageSpec, rootTar, imageScript, overridable, storePaths, tarball, unpackLimits }:

/* An image of copies of files, as an archive for `docker load`.

   Type: buildImage :: AttrSet -> Derivation
*/
lib.fix (self:
{
  # Name of the image; tag of it, or null for a hash.
  name
, tag ? null
  # The base image. Of an archive of several images, the first one.
, fromImage ? null
, fromImageName ? null
, fromImageTag ? null
  # Derivations whose files are copied to `/`. The store paths that they refer to are in the image's store.
, copyToRoot ? null
  # True if a link to a directory stays a link even if another package has a directory there.
, keepContentsDirlinks ? false
  # Commands that run as root, chroot'ed to the image's root. They need no virtual machine.
, runAsRoot ? null
  # Commands that run in the directory of the image's root.
, extraCommands ? ""
  # The owner of the files.
, uid ? 0
, gid ? 0
  # Settings of nixpkgs' virtual machine, which have no effect.
, diskSize ? 1024
, buildVMMemorySize ? 512
, created ? "1970-01-01T00:00:01Z"
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
, architecture ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
, compressor ? "gz"
, includeNixDB ? false
  # The old name of copyToRoot.
, contents ? null
, meta ? { }
}@arguments: overridable "dockerTools.buildImage" self arguments (
  let
    baseName = baseNameOf (lib.toLower name);
    copied = lib.warnIf (contents != null)
      "stowage.dockerTools.buildImage: `contents` is now called `copyToRoot`: ${name}"
      (if contents != null then contents else copyToRoot);
    copies = storePaths "dockerTools.buildImage: `copyToRoot`" copied;
    tar = rootTar {
      name = "docker-layer-${baseName}";
      copyToRoot = copies;
      followDirlinks = !keepContentsDirlinks;
      inherit extraCommands runAsRoot uid gid;
      fromImage = if runAsRoot == null then null else fromImage;
    };
    spec = imageSpec {
      function = "dockerTools.buildImage";
      name = baseName;
      inherit fromImage config annotations architecture created includeNixDB;
      maxLayers = 100;
      roots = map (path: "${path}") copies;
      tars = lib.optional (copies != [ ] || extraCommands != "" || runAsRoot != null) tar;
      declarations = { inherit accounts user directories files links tmp; };
    };
    stream = imageScript {
      function = "dockerTools.buildImage";
      prefix = "stream";
      inherit name tag spec meta;
      limits = unpackLimits.of fromImage;
      roots = copies;
      inherit fromImage;
      texts = [ (builtins.toJSON config) extraCommands ] ++ lib.optional (runAsRoot != null) runAsRoot;
    };
  in
  assert lib.assertMsg (contents == null || copyToRoot == null)
    "stowage.dockerTools.buildImage: `contents` is the old name of `copyToRoot`: give one of them (${name})";
  # These arguments are accepted, and have no effect.
  builtins.seq [ diskSize buildVMMemorySize fromImageName fromImageTag ]
    (tarball { inherit stream compressor meta; name = "docker-image-${baseName}"; })
)
)
