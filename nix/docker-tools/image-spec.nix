{ lib, emptyFile, writeText, annotationsOf, baseImage, internalSpec, nixDatabase }:

# The common part of streamLayeredImage and buildImage: makes an image spec of nixpkgs' arguments.
{
  # The function whose arguments these are, for messages.
  function
, name
, fromImage
, config
, annotations
, architecture
, created
, maxLayers
, storeAttributes ? { }
, layering ? "runs"
  # Store paths, as strings, that are in the image with everything that they need.
, roots
, includeStorePaths ? true
  # Derivations whose files are copied to `/`.
, copyToRoot ? [ ]
, perms ? [ ]
  # Tars of the topmost layers.
, tars ? [ ]
, includeNixDB
}:
let
  # Docker accepts a string in place of a list of one (strslice of its API), and names in any letter case.
  isCommand = name: lib.elem (lib.toLower name) [ "cmd" "entrypoint" "shell" ];
  settings = lib.mapAttrs
    (name: value: if isCommand name && lib.isStringLike value then [ value ] else value)
    (if config == null then { } else config);

  # A file with the store paths of `config`, so that they are in the closure. The image does not contain this
  # file, nor the tars as files.
  rootFile = if includeStorePaths then writeText "${name}-config.json" (builtins.toJSON settings) else emptyFile;
  files = [ rootFile ] ++ map (tar: "${tar}") tars;
  allRoots = if includeStorePaths then files ++ roots else [ rootFile ];
  database = nixDatabase { inherit function name copyToRoot fromImage architecture; roots = allRoots; exclude = files; };
in
internalSpec {
  inherit function copyToRoot;
  name = "${name}-image.json";
  kind = "image";
  roots = allRoots;
  contents = null;
  layers = [ ];
  inherit perms;
  addToRoot = lib.optional includeNixDB "${database}";
  options = {
    inherit created maxLayers layering storeAttributes architecture;
    config = settings;
    annotations = annotationsOf { inherit function annotations fromImage; };
    maxLayersIsTotal = true;
    tars = map (tar: "${tar}") tars;
    fromImage = baseImage fromImage;
    exclude = files;
  };
}
