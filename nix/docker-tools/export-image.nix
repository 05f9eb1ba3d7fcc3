{ runCommand, builder }:

/* The root file system that a container of an image has, as a tar.

   Type: exportImage :: AttrSet -> Derivation
*/
{ fromImage
, name ? fromImage.name
  # Archives of several images: the first.
, fromImageName ? null
, fromImageTag ? null
  # Of the virtual machine that there is not.
, diskSize ? 1024
}:
builtins.seq [ fromImageName fromImageTag diskSize ]
  (runCommand name { } "${builder}/bin/stowage flatten ${fromImage.spec or fromImage} > $out")
