{ lib, runCommand, stowage }:

/* One archive of several, for one `docker load`.

   Type: mergeImages :: [ Derivation ] -> Derivation
*/
images:
assert lib.assertMsg (images != [ ]) "stowage.dockerTools.mergeImages: there is no image in the list";
runCommand "merge-docker-images.tar" { }
  "${stowage}/bin/stowage merge ${lib.escapeShellArgs (map (image: "${image.archive or image}") images)} > $out"
