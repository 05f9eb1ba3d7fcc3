# What `stowage serve --packages` has Nix build: a file that says what the image of some packages is made
# of, or which of them don't exist. All arguments are strings. Evaluated in restricted mode: the packages' code
# reads nothing but itself.
{
  # The program that serves: in the store, or elsewhere.
  program
  # As in `buildImageFromNames`, whose own packages are these as well.
, name
, packages
  # The directory that the packages are imported from.
, source
, maxLayers
  # A file with popularity data, or nothing.
, popularity
}:
let
  pkgs = import source { system = builtins.currentSystem; };
  inStore = builtins.match "(${builtins.storeDir}/[^/]+)/bin/stowage" program;
  stowage =
    if inStore != null then builtins.storePath (builtins.head inStore)
    else
      pkgs.runCommand "stowage" { program = builtins.path { path = program; name = "stowage-program"; }; }
        "install -D $program $out/bin/stowage";
  # Which is its own builder as well: none is compiled before the first answer.
  library = import ./lib.nix { inherit pkgs stowage; };
in
(library.buildImageFromNames {
  inherit name packages;
  pkgSource = "path!${source}";
  maxLayers = builtins.fromJSON maxLayers;
  popularity = if popularity == "" then null else builtins.path { path = popularity; name = "popularity.json"; };
}).json
