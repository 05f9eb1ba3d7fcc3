# Everything stowage offers to Nix code.
#
#   stowage = import ./nix/lib.nix { inherit pkgs; };
#   stowage.buildImage { name = "hello"; config.Cmd = [ "${pkgs.hello}/bin/hello" ]; }
#
# pkgs:       nixpkgs; its host platform is that of the images.
# scriptPkgs: nixpkgs for the machine that runs the images' scripts, such as `./result`, if that is another
#             one than builds images: a Mac's, where a Linux builder makes them.
# stowage:    the program, for the machine that runs the images' scripts.
# builder:    the part of it that derivations run, for the machine that builds images.
# streamer:   the part of it that streams images, for the machine that runs their scripts.
{ pkgs
, scriptPkgs ? pkgs.buildPackages
, stowage ? scriptPkgs.callPackage ./package.nix { }
, builder ? if arguments ? stowage then stowage else pkgs.buildPackages.callPackage ./package.nix { onlyBuilder = true; }
, streamer ? if arguments ? scriptPkgs && !(arguments ? stowage) then scriptPkgs.callPackage ./package.nix { onlyBuilder = true; } else builder
}@arguments:
let
  inherit (pkgs) lib;
  available = pkgs // {
    inherit pkgs scriptPkgs stowage annotationsOf baseAnnotations baseImage builder checkedArguments streamer builderDerivation imageScript internalSpec nixDatabase overridable runPull sbom script storePaths systemFiles unpackLimits;
  };
  callPackage = lib.callPackageWith available;
  # Calls a file as callPackage does. What callPackage makes of a function, builtins.functionArgs doesn't know.
  callFunction = import ./call-function.nix available;

  baseImage = import ./base-image.nix;
  # The program, for the machine that builds images.
  programOfDerivations =
    if arguments ? scriptPkgs && !(arguments ? stowage) then pkgs.buildPackages.callPackage ./package.nix { } else stowage;
  annotationsOf = callFunction ./annotations.nix { };
  baseAnnotations = callFunction ./base-annotations.nix { };
  checkedArguments = callFunction ./arguments.nix { };
  builderDerivation = callFunction ./builder-derivation.nix { };
  imageScript = callFunction ./image-script.nix { };
  internalSpec = callFunction ./internal-spec.nix { };
  nixDatabase = callFunction ./nix-database.nix { };
  overridable = callFunction ./overridable.nix { };
  runPull = callFunction ./run-pull.nix { };
  sbom = callFunction ./sbom.nix { stowage = programOfDerivations; };
  script = callFunction ./script.nix { };
  storePaths = callFunction ./store-paths.nix { };
  systemFiles = callFunction ./system-files.nix { };
  unpackLimits = callFunction ./unpack-limits.nix { };
in
rec {
  buildImage = callFunction ./build-image.nix { };
  buildImageFromNames = callFunction ./image-from-names.nix {
    inherit buildImage;
    ownPkgs = pkgs;
    stowage = programOfDerivations;
  };
  buildIndex = callFunction ./build-index.nix { };
  buildLayer = callFunction ./build-layer.nix { };
  dockerTools = callPackage ./docker-tools { };
  popularity = callFunction ./popularity.nix { };
  # The program that all of these run.
  program = stowage;
  pullImage = callFunction ./pull-image.nix { stowage = programOfDerivations; };
  pullImageFromManifest = callFunction ./pull-image-from-manifest.nix { };
  serve = callPackage ./serve.nix { };
  skopeo = callPackage ./skopeo.nix { };
  structureTest = callFunction ./structure-test.nix { stowage = programOfDerivations; };
}
