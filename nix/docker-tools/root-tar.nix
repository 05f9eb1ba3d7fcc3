{ lib, pkgs, runCommand, shellScript, builder }:

# A tar of files that commands have made, with the owners and modes that they gave them: a store path
# could not keep these. Nobody has to be root for it, and there is no virtual machine:
# root-tar.sh says how.
{ name
  # Derivations whose files are copied to the root.
, copyToRoot ? [ ]
  # Whether a link to a directory becomes one, as nixpkgs' buildImage has it.
, followDirlinks ? false
  # Whether their directories can be written to afterwards, as in nixpkgs' layered images.
, writable ? false
, extraCommands ? ""
, fakeRootCommands ? ""
  # Whether `/` is the root for fakeRootCommands.
, chroot ? false
  # A script that is always chroot'ed; or null.
, runAsRoot ? null
  # The owner of everything, where there is no runAsRoot.
, uid ? 0
, gid ? 0
  # The image that runAsRoot works on: the tar has what differs.
, fromImage ? null
}:
runCommand "${name}.tar"
{
  nativeBuildInputs = with pkgs.buildPackages; [ coreutils fakeroot findutils gnused gnutar rsync util-linux ];
  inherit copyToRoot extraCommands fakeRootCommands uid gid;
  rsyncFlag = if followDirlinks then "k" else "K";
  writable = lib.boolToString writable;
  chrooted = lib.boolToString (chroot && fakeRootCommands != "");
  runAsRoot = if runAsRoot == null then "" else shellScript "run-as-root.sh" runAsRoot;
  flatten = if fromImage == null then "" else "${builder}/bin/stowage flatten ${fromImage.spec or fromImage}";
} "source ${./root-tar.sh}"
