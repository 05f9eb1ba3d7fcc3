{ lib, pkgs, stowage, internalSpec, nixDatabase, imageScript }:

/* nixpkgs' dockerTools: the same functions, arguments and defaults, on stowage.

   docs/docker-tools.md says what is different, and why.
*/
let
  callPackage = lib.callPackageWith (pkgs // {
    inherit pkgs stowage internalSpec nixDatabase imageScript;
    inherit (self) buildImage buildLayeredImage streamLayeredImage streamNixShellImage shellScript
      binSh fakeNss usrBinEnv;
    rootTar = callPackage ./root-tar.nix { };
    imageSpec = callPackage ./image-spec.nix { };
    tarball = callPackage ./tarball.nix { };
  });
  layeredImage = callPackage ./layered-image.nix { };
  nixShellImage = callPackage ./nix-shell-image.nix { };
  withNixDb = function: arguments: function (arguments // { includeNixDB = true; });

  self = callPackage ./files.nix { } // {
    inherit (layeredImage) streamLayeredImage buildLayeredImage;
    inherit (nixShellImage) streamNixShellImage buildNixShellImage;
    buildImage = callPackage ./build-image.nix { };
    buildImageWithNixDb = withNixDb self.buildImage;
    buildLayeredImageWithNixDb = withNixDb self.buildLayeredImage;
    exportImage = callPackage ./export-image.nix { };
    mergeImages = callPackage ./merge-images.nix { };
    pullImage = callPackage ./pull-image.nix { };
    tarsum = pkgs.writeShellScriptBin "tarsum" "exec ${stowage}/bin/stowage tarsum";
    # Evaluated and built only where they are asked for.
    examples = import ./examples.nix { inherit pkgs; dockerTools = self; };
  };
in
self
