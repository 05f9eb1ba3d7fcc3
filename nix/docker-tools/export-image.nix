{ runCommand, builder, checkedArguments, unpackLimits }:

/* The root file system that a container of an image has, as a tar.

   Type: exportImage :: AttrSet -> Derivation
*/
{ fromImage
, name ? fromImage.name or (baseNameOf fromImage)
  # If the archive has several images, the first one is taken.
, fromImageName ? null
, fromImageTag ? null
  # A setting of nixpkgs' virtual machine, which has no effect.
, diskSize ? 1024
}@arguments:
checkedArguments "dockerTools.exportImage" arguments (builtins.seq [ fromImageName fromImageTag diskSize ]
  (runCommand name (unpackLimits.environment fromImage) "${builder}/bin/stowage flatten ${fromImage.spec or fromImage} > $out"))
