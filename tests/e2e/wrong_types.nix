# Returns the arguments of each function that take values of every type.
{ stowage, lib, hello, path, ... }:
let
  inherit (stowage) dockerTools;
  name = "a";
  image = stowage.buildImage { inherit name; };
  pulled = { imageName = "a"; imageDigest = "sha256:" + lib.concatStrings (lib.genList (_: "0") 64); hash = ""; };
  functions = {
    buildImage = { function = stowage.buildImage; needs = { inherit name; }; };
    buildImageFromNames = { function = stowage.buildImageFromNames; needs = { inherit name; }; };
    buildIndex = { function = stowage.buildIndex; needs = { inherit name; images = [ image ]; }; };
    buildLayer = { function = stowage.buildLayer; needs = { }; };
    popularity = { function = stowage.popularity; needs.packages = [ hello ]; };
    pullImage = { function = stowage.pullImage; needs = pulled; };
    structureTest = { function = stowage.structureTest; needs = { inherit image; tests = { }; }; };
    pullImageFromManifest = { function = stowage.pullImageFromManifest; needs.imageName = "a"; };
    "dockerTools.buildImage" = { function = dockerTools.buildImage; needs = { inherit name; }; };
    "dockerTools.buildLayeredImage" = { function = dockerTools.buildLayeredImage; needs = { inherit name; }; };
    "dockerTools.exportImage" = { function = dockerTools.exportImage; needs.fromImage = image; };
    "dockerTools.pullImage" = { function = dockerTools.pullImage; needs = pulled; };
    "dockerTools.streamLayeredImage" = { function = dockerTools.streamLayeredImage; needs = { inherit name; }; };
    "dockerTools.buildNixShellImage" = { function = dockerTools.buildNixShellImage; needs.drv = hello; };
    "dockerTools.streamNixShellImage" = { function = dockerTools.streamNixShellImage; needs.drv = hello; };
  };
  # Settings of nixpkgs' that have no effect, and files that Nix reads.
  ignored = [ "buildVMMemorySize" "debug" "diskSize" "fromImageName" "fromImageTag" "imageManifest" "pkgSource" ];
  values = [ (x: x) 3 1.5 "" "a\nb" "ü" null true [ 1 ] { a = 1; } hello (path + "/default.nix") ];
  fails = function: arguments: !(builtins.tryEval (builtins.seq (function arguments).drvPath true)).success;
  ofFunction = { function, needs }: lib.concatMap
    (argument:
      let failing = map (value: fails function (needs // { ${argument} = value; })) values; in
      builtins.deepSeq failing (lib.optional (!lib.any lib.id failing) argument))
    (lib.filter (argument: !lib.elem argument ignored) (lib.attrNames (builtins.functionArgs function)));
in
lib.mapAttrs (_: ofFunction) functions
