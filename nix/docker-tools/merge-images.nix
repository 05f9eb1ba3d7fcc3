{ lib, runCommand, builder, storePaths }:

/* One archive of several, for one `docker load`.

   Type: mergeImages :: [ Derivation ] -> Derivation
*/
given:
let images = storePaths "dockerTools.mergeImages: the images" given; in
assert lib.assertMsg (images != [ ]) "stowage.dockerTools.mergeImages: there is no image in the list";
runCommand "merge-docker-images.tar" { }
  "${builder}/bin/stowage merge ${lib.escapeShellArgs (map (image: "${image.archive or image}") images)} > $out"
