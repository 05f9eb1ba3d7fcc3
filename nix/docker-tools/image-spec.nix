{ lib, emptyFile, writeText, annotationsOf, baseImage, internalSpec, nixDatabase, systemFiles }:

# The common part of streamLayeredImage and buildImage: makes an image spec of nixpkgs' arguments. Declared
# accounts, directories, files and links are one more layer, on an image of all the rest, since they have to agree
# with the files that commands make.
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
  # As for stowage's buildImage.
, declarations
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

  specOf = { roots, fromImage, config, copyToRoot, tars, perms, maxLayers, layering, includeNixDB, declared ? null }:
    let
      system = lib.optional (declared != null) "${declared}";
      database = nixDatabase {
        inherit function name copyToRoot fromImage architecture roots;
        exclude = files;
        addToRoot = system;
      };
    in
    internalSpec {
      inherit function roots copyToRoot perms fromImage;
      name = "${name}-image.json";
      kind = "image";
      contents = null;
      layers = [ ];
      addToRoot = system ++ lib.optional includeNixDB "${database}";
      options = {
        inherit config created maxLayers layering storeAttributes architecture;
        annotations = annotationsOf { inherit function annotations fromImage; };
        maxLayersIsTotal = true;
        tars = map (tar: "${tar}") tars;
        fromImage = baseImage fromImage;
        exclude = files;
      } // lib.optionalAttrs (declared != null) { systemFiles = "${declared}"; };
    };

  given = { inherit fromImage copyToRoot tars perms maxLayers layering includeNixDB; config = settings; roots = allRoots; };
  below = specOf (given // { config = { }; maxLayers = maxLayers - 1; includeNixDB = false; });
  # Null if nothing is declared, whatever the image below is.
  declared = systemFiles (declarations // {
    inherit function name architecture;
    config = settings;
    fromImage = below;
  });
in
if declared == null then specOf given
else
  assert lib.assertMsg includeStorePaths
    "stowage.${function}: declared accounts and files need `includeStorePaths`, since they may refer to the store";
  specOf {
    inherit declared maxLayers includeNixDB;
    roots = [ rootFile ];
    fromImage = below // { baseAnnotations = fromImage.baseAnnotations or { }; };
    config = settings;
    copyToRoot = [ ];
    tars = [ ];
    perms = [ ];
    layering = "runs";
  }
