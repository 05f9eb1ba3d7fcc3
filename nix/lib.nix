# Everything stowage offers to Nix code.
#
#   stowage = import ./nix/lib.nix { inherit pkgs; };
#   stowage.buildImage { name = "hello"; config.Cmd = [ "${pkgs.hello}/bin/hello" ]; }
#
# pkgs:    nixpkgs; its host platform is that of the images.
# stowage: the program, for the machine that builds images and runs their scripts.
# builder: the part of it that derivations run, and that streams images.
{ pkgs
, stowage ? pkgs.buildPackages.callPackage ./package.nix { }
, builder ? if arguments ? stowage then stowage else pkgs.buildPackages.callPackage ./package.nix { onlyBuilder = true; }
}@arguments:
let
  inherit (pkgs) lib;
  available = pkgs // {
    inherit pkgs stowage builder builderDerivation imageScript internalSpec nixDatabase overridable script storePaths;
  };
  callPackage = lib.callPackageWith available;
  # Calls a file as callPackage does. What callPackage makes of a function, builtins.functionArgs doesn't know.
  callFunction = import ./call-function.nix available;

  builderDerivation = callFunction ./builder-derivation.nix { };
  imageScript = callFunction ./image-script.nix { };
  internalSpec = callFunction ./internal-spec.nix { };
  nixDatabase = callFunction ./nix-database.nix { };
  overridable = callFunction ./overridable.nix { };
  script = callFunction ./script.nix { };
  storePaths = callFunction ./store-paths.nix { };
in
rec {
  buildImage = callFunction ./build-image.nix { };
  buildImageFromNames = callFunction ./image-from-names.nix { inherit buildImage; ownPkgs = pkgs; };
  buildIndex = callFunction ./build-index.nix { };
  buildLayer = callFunction ./build-layer.nix { };
  dockerTools = callPackage ./docker-tools { };
  popularity = callFunction ./popularity.nix { };
  pullImage = callFunction ./pull-image.nix { };
  pullImageFromManifest = callFunction ./pull-image-from-manifest.nix { };
  serve = callPackage ./serve.nix { };
  skopeo = callPackage ./skopeo.nix { };
}
