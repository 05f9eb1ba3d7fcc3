{ lib, pkgs, runCommand, shellScript, builder, unpackLimits }:

# A tar of files that commands have made, with the owners and modes that the commands set, which a store path
# could not have. This needs neither root nor a virtual machine: root-tar.sh says how.
{ name
  # Derivations whose files are copied to the root.
, copyToRoot ? [ ]
  # True if a link to a directory becomes a directory, as in nixpkgs' buildImage.
, followDirlinks ? false
  # True if the commands can write to the directories, as in nixpkgs' layered images.
, writable ? false
, extraCommands ? ""
, fakeRootCommands ? ""
  # True if fakeRootCommands see the image's root as `/`.
, chroot ? false
  # A script that always runs chroot'ed; or null.
, runAsRoot ? null
  # The owner of all files, if there is no runAsRoot.
, uid ? 0
, gid ? 0
  # The image that runAsRoot works on: the tar has the differences from this image.
, fromImage ? null
}:
runCommand "${name}.tar"
  (unpackLimits.environment fromImage // {
    nativeBuildInputs = with pkgs.buildPackages; [ coreutils fakeroot findutils gnused gnutar rsync util-linux ];
    inherit copyToRoot extraCommands fakeRootCommands uid gid;
    rsyncFlag = if followDirlinks then "k" else "K";
    writable = lib.boolToString writable;
    chrooted = lib.boolToString (chroot && fakeRootCommands != "");
    runAsRoot = if runAsRoot == null then "" else shellScript "run-as-root.sh" runAsRoot;
    flatten = if fromImage == null then "" else "${builder}/bin/stowage flatten ${fromImage.spec or fromImage}";
  }) "source ${./root-tar.sh}"
