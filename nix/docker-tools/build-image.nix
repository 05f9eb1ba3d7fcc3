{ lib, pkgs, stdenv, imageSpec, rootTar, imageScript, overridable, storePaths, tarball }:

/* An image of copies of files, as an archive for `docker load`.

   Type: buildImage :: AttrSet -> Derivation
*/
lib.fix (self:
{
  # Name of the image; tag of it, or null for a hash.
  name
, tag ? null
  # The image to stand on. Archives of several images: the first.
, fromImage ? null
, fromImageName ? null
, fromImageTag ? null
  # Derivations whose files are copied to `/`; what they refer to is in the image's store.
, copyToRoot ? null
  # Whether a link to a directory stays one where it meets a directory.
, keepContentsDirlinks ? false
  # Commands as root, chroot'ed to the image's root: no virtual machine is needed for them.
, runAsRoot ? null
  # Commands, with the image's root as directory they are run in.
, extraCommands ? ""
  # Who owns the files.
, uid ? 0
, gid ? 0
  # Of the virtual machine that there is not.
, diskSize ? 1024
, buildVMMemorySize ? 512
, created ? "1970-01-01T00:00:01Z"
, config ? { }
  # The annotations of its manifest: a set of strings. nixpkgs has no such argument.
, annotations ? { }
, architecture ? stdenv.hostPlatform.go.GOARCH or pkgs.go.GOARCH
, compressor ? "gz"
, includeNixDB ? false
  # The old name of copyToRoot.
, contents ? null
, meta ? { }
}@arguments: overridable self arguments (
  let
    baseName = baseNameOf (lib.toLower name);
    copied = lib.warnIf (contents != null)
      "stowage.dockerTools.buildImage: `contents` is now called `copyToRoot`: ${name}"
      (if contents != null then contents else copyToRoot);
    copies = storePaths copied;
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
    };
    stream = imageScript {
      function = "dockerTools.buildImage";
      prefix = "stream";
      inherit name tag spec meta;
      roots = copies;
      texts = [ (builtins.toJSON config) extraCommands ] ++ lib.optional (runAsRoot != null) runAsRoot;
    };
  in
  assert lib.assertMsg (contents == null || copyToRoot == null)
    "stowage.dockerTools.buildImage: `contents` is the old name of `copyToRoot`: give one of them (${name})";
  # Accepted, and of no use.
  builtins.seq [ diskSize buildVMMemorySize fromImageName fromImageTag ]
    (tarball { inherit stream compressor meta; name = "docker-image-${baseName}"; })
)
)
