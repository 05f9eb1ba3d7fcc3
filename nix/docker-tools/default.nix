{ pkgs, scriptPkgs, stowage, annotationsOf, baseAnnotations, builder, checkedArguments, storePaths, overridable, baseImage, internalSpec, nixDatabase, imageScript, runPull, systemFiles, unpackLimits }:

/* nixpkgs' dockerTools: the same functions, arguments and defaults, on stowage.

   docs/docker-tools.md says what is different, and why.
*/
let
  callFunction = import ../call-function.nix (pkgs // {
    inherit pkgs scriptPkgs stowage annotationsOf baseAnnotations builder checkedArguments storePaths overridable baseImage internalSpec nixDatabase imageScript runPull systemFiles unpackLimits;
    inherit (self) buildImage buildLayeredImage streamLayeredImage streamNixShellImage shellScript
      binSh fakeNss usrBinEnv;
    rootTar = callFunction ./root-tar.nix { };
    imageSpec = callFunction ./image-spec.nix { };
    tarball = callFunction ./tarball.nix { };
  });
  layeredImage = callFunction ./layered-image.nix { };
  nixShellImage = callFunction ./nix-shell-image.nix { };
  withNixDb = function: arguments: function (arguments // { includeNixDB = true; });

  self = callFunction ./files.nix { } // {
    inherit (layeredImage) streamLayeredImage buildLayeredImage;
    inherit (nixShellImage) streamNixShellImage buildNixShellImage;
    buildImage = callFunction ./build-image.nix { };
    buildImageWithNixDb = withNixDb self.buildImage;
    buildLayeredImageWithNixDb = withNixDb self.buildLayeredImage;
    exportImage = callFunction ./export-image.nix { };
    mergeImages = callFunction ./merge-images.nix { };
    pullImage = callFunction ./pull-image.nix { };
    tarsum = pkgs.buildPackages.writeShellScriptBin "tarsum" "exec ${stowage}/bin/stowage tarsum";
    # Evaluated and built only where they are asked for.
    examples = import ./examples.nix { inherit pkgs; dockerTools = self; };
  };
in
self
