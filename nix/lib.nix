# Everything stowage offers to Nix code.
#
#   stowage = import ./nix/lib.nix { inherit pkgs; };
#   stowage.buildImage { name = "hello"; config.Cmd = [ "${pkgs.hello}/bin/hello" ]; }
#
# pkgs:    nixpkgs; its host platform is that of the images.
# stowage: the program, for the machine that builds images and runs their scripts.
{ pkgs
, stowage ? pkgs.buildPackages.callPackage ./package.nix { }
}:
let
  callPackage = pkgs.lib.callPackageWith (pkgs // { inherit pkgs stowage builderDerivation internalSpec nixDatabase script imageScript; });
  script = callPackage ./script.nix { };
  imageScript = callPackage ./image-script.nix { };
  builderDerivation = import ./builder-derivation.nix { inherit (pkgs) stdenv; inherit stowage; };
  internalSpec = import ./internal-spec.nix { inherit (pkgs) lib; inherit builderDerivation; };
  nixDatabase = import ./nix-database.nix { inherit internalSpec; };
in
rec {
  buildImage = callPackage ./build-image.nix { };
  buildImageFromNames = callPackage ./image-from-names.nix { inherit buildImage; ownPkgs = pkgs; };
  buildIndex = callPackage ./build-index.nix { };
  buildLayer = callPackage ./build-layer.nix { };
  dockerTools = callPackage ./docker-tools { };
  popularity = callPackage ./popularity.nix { };
  pullImage = callPackage ./pull-image.nix { };
  serve = callPackage ./serve.nix { };
  pullImageFromManifest = callPackage ./pull-image-from-manifest.nix { };
}
